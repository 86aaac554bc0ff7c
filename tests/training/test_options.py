"""Settings of a training run: each has bounds, which a configuration keeps or is refused by."""

from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

import pytest

from ladcast.config import ConfigError, parse_config
from ladcast.training.options import TrainingOptions


def read(dotted: str, value: Any) -> TrainingOptions:
    *sections, name = dotted.split(".")
    content = {name: value}
    for section in reversed(sections):
        content = {section: content}
    return parse_config(content, TrainingOptions, where="run.yaml")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("steps", [0, -1, 1.5]),
        ("batch_size", [0, -4]),
        ("micro_batch_size", [0]),
        ("seed", [-1, 2**63]),
        ("ema_decay", [float("nan"), 1.5, 1.0, -0.1]),
        ("log_every", [0]),
        ("checkpoint_every", [0]),
        ("loader_threads", [0]),
        ("sharding", ["zero"]),
        ("optimizer.learning_rate", [0, -1e-4, float("nan"), "-inf"]),
        ("optimizer.weight_decay", [-0.01, float("nan")]),
        ("optimizer.warmup_steps", [-1]),
        ("optimizer.final_fraction", [-0.1, 1.1]),
        ("optimizer.max_gradient_norm", [0, -1.0, float("nan")]),
        ("anomaly.spike", [1, 0.5, -2]),
        ("anomaly.limit", [-1]),
        ("anomaly.action", ["hope"]),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_key(name: str, values: list[Any]):
    for value in values:
        with pytest.raises(ConfigError, match=rf"run\.yaml: '{name}'.* should be .*\(got"):
            read(name, value)


def numbers(schema: type, prefix: str = "") -> list[str]:
    """Returns the dotted names of all settings that are numbers."""
    hints, found = get_type_hints(schema, include_extras=True), []
    for item in fields(schema):
        hint = hints[item.name]
        if is_dataclass(hint):
            found += numbers(hint, f"{prefix}{item.name}.")
        elif hint is not bool and ("int" in str(hint) or "float" in str(hint)):
            found.append(f"{prefix}{item.name}")
    return found


@pytest.mark.parametrize("name", numbers(TrainingOptions))
def test_no_number_of_a_training_has_no_bounds(name: str):
    for value in (float("inf"), -1e30):
        with pytest.raises(ConfigError, match=rf"'{name}'"):
            read(name, value)
