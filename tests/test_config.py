"""The configuration loader: strict about keys and types, relative to the file, helpful when it refuses."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from annotated_types import Ge, Gt

from ladcast.config import ConfigError, load_config, parse_config, to_plain


@dataclass(frozen=True)
class Sampler:
    steps: Annotated[int, Ge(1)] = 20
    rate: Annotated[float, Gt(0)] = 0.5

    def __post_init__(self) -> None:
        if self.steps == 13:
            raise ValueError("13 brings no luck.")


@dataclass(frozen=True)
class Store:
    path: Path
    levels: tuple[int, ...] = (500, 850)


@dataclass(frozen=True)
class Run:
    start: str
    store: Store
    sampler: Sampler = field(default_factory=Sampler)
    validation: Store | None = None
    others: tuple[Path, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


MINIMAL = "start: 2011-10-11T00\nstore: {path: data/a.zarr}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "run.yaml").write_text(MINIMAL)
    return tmp_path / "run.yaml"


def test_defaults_fill_what_is_not_said(path: Path):
    run = load_config(path, Run)
    assert run == Run(start="2011-10-11T00", store=Store(path.parent / "data/a.zarr"))


def test_dates_stay_as_they_are_written(path: Path):
    """YAML would make a datetime of it, which no schema here asks for."""
    path.write_text(MINIMAL.replace("2011-10-11T00", "2011-10-11"))
    assert load_config(path, Run).start == "2011-10-11"


def test_paths_are_relative_to_the_file_at_every_depth(path: Path, tmp_path: Path):
    path.write_text(MINIMAL + "validation: {path: ../b.zarr}\nothers: [c, /d]\n")
    run = load_config(path, Run)
    assert run.validation == Store(tmp_path / "../b.zarr")
    assert run.others == (tmp_path / "c", Path("/d"))


def test_overrides_win_over_the_file_and_keep_its_neighbours(path: Path):
    path.write_text(MINIMAL + "sampler: {steps: 7, rate: 0.25}\n")
    run = load_config(path, Run, ["sampler.steps=9", "store.levels=[1000]", "start=2012-01-01"])
    assert (run.sampler, run.store.levels, run.start) == (Sampler(9, 0.25), (1000,), "2012-01-01")


def test_an_override_may_open_a_section(path: Path):
    assert load_config(path, Run, ["validation.path=b"]).validation == Store(path.parent / "b")


def test_a_float_may_be_written_as_1e_4(path: Path):
    """YAML 1.1 reads 1e-4, which has no point, as text."""
    assert load_config(path, Run, ["sampler.rate=1e-4"]).sampler.rate == 1e-4


def test_a_configuration_survives_yaml(path: Path):
    run = load_config(path, Run, ["sampler.steps=3", "validation.path=b", "others=[c]"])
    again = yaml.safe_load(yaml.safe_dump(to_plain(run)))
    assert parse_config(again, Run, where="again") == run


@pytest.mark.parametrize(
    ("addition", "message"),
    [
        ("smapler: {steps: 3}", r"run\.yaml: unknown config key 'smapler'\. Did you mean 'sampler'\?"),
        ("sampler: {step: 3}", r"unknown config key 'sampler\.step'\. Did you mean 'steps'\?"),
        ("sampler: {zzz: 3}", r"unknown config key 'sampler\.zzz'\. Known keys: steps, rate\."),
        ("validation: {path: a, level: []}", r"unknown config key 'validation\.level'. Did you mean 'levels'\?"),
        ("sampler: {steps: many}", r"'sampler\.steps': .*integer.*\(got 'many'\)"),
        ("sampler: {steps: 2.5}", r"'sampler\.steps': .*integer.*\(got 2\.5\)"),
        ("sampler: {steps: 0}", r"'sampler\.steps': .*greater than or equal to 1 \(got 0\)"),
        ("sampler: {steps: 13}", r"run\.yaml: .*13 brings no luck"),
        ("validation: {levels: [500]}", r"'validation\.path': Field required"),
        ("validation: 3", r"'validation.*\(got 3\)"),
        ("sampler: [", r"run\.yaml cannot be read as YAML: "),
        ("sampler: {rate: 0}", r"'sampler\.rate': .*greater than 0 \(got 0\)"),
        ("sampler: {rate: -.inf}", r"'sampler\.rate': .*greater than 0 \(got -inf\)"),
        ("sampler: {rate: .nan}", r"'sampler\.rate': .*greater than 0 \(got nan\)"),
        ("sampler: {rate: .inf}", r"run\.yaml: 'sampler\.rate': expected a finite number"),
        ("sampler: {rate: 1e999}", r"run\.yaml: 'sampler\.rate': expected a finite number"),
        ("notes: {a: [1, .nan]}", r"run\.yaml: 'notes\.a\.1': expected a finite number"),
        ("sampler: {steps: 1, steps: 2}", r"the key 'steps' is there twice.*line 3"),
        ("start: 2012-01-01", r"the key 'start' is there twice"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_key(path: Path, addition: str, message: str):
    path.write_text(f"{MINIMAL}{addition}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path, Run)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sampler.steps", r"Expected an override as key=value, got 'sampler\.steps'"),
        ("sampler.stpes=3", r"unknown config key 'sampler\.stpes'\. Did you mean 'steps'\?"),
        ("start.day=3", r"'start\.day=3' needs a section 'start', which holds '2011-10-11T00'"),
        ("store.levels=[", r"The override '.*' cannot be read as YAML"),
    ],
)
def test_a_wrong_override_is_refused(path: Path, override: str, message: str):
    with pytest.raises(ConfigError, match=message):
        load_config(path, Run, [override])


@pytest.mark.parametrize(("content", "got"), [("", "NoneType"), ("- start", "list"), ("text", "str")])
def test_a_file_holds_a_mapping(path: Path, content: str, got: str):
    path.write_text(content)
    with pytest.raises(ConfigError, match=rf"run\.yaml: expected a mapping of names to values, got {got}"):
        load_config(path, Run)


def test_a_missing_file_and_a_missing_key_are_named(path: Path):
    with pytest.raises(ConfigError, match=r"No configuration file at .*none\.yaml"):
        load_config(path.with_name("none.yaml"), Run)
    path.write_text("start: 2011-10-11\n")
    with pytest.raises(ConfigError, match=r"'store': Field required"):
        load_config(path, Run)
