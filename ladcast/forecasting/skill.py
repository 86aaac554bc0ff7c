"""One model, a time budget: the steppers in a model's folder, and how good each was at how many network calls.

The folder of a model is the checkpoint of its own stepper. Folders within hold further steppers, each a whole
checkpoint of the same channels and grid, and the table `skill.yaml` says which of them, with which settings, had which
scores on the same forecasts (docs/decisions/029). A folder without a table has one choice: its own stepper as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
import yaml
from jaxtyping import Float

from ladcast.checkpoint import SKILL, checkpoint_hash, copy_checkpoint, further_steppers, list_data, read_document
from ladcast.documents import describing, parse_json, read_netcdf
from ladcast.fields import HEADLINE_CHANNELS
from ladcast.files import whole_file
from ladcast.forecasting.checkpoints import plain, read_config, read_description
from ladcast.forecasting.forecaster import find_stepper
from ladcast.forecasting.stepper import Stepper
from ladcast.resumable import require_same
from ladcast.times import DAY
from ladcast.verification.archive import SETTINGS, holds_scores

DAYS = (1, 3, 5, 10)
"""Lead times in days at which choices are compared, as far as they were scored."""
METRICS = ("fair_crps", "spread_skill")
OWN = "its own"
"""What stands in texts for the stepper of the folder itself."""
HASH_DIGITS = 12


class Chosen(NamedTuple):
    """The stepper that makes a forecast: its folder within that of the model, empty for its own, and its settings."""

    stepper: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """One way to make a forecast with a model, and the scores it had; without scores where it was not measured."""

    stepper: str
    """The folder of the stepper within that of the model; empty for its own."""
    weights: str
    """First digits of the SHA-256 of the stepper's checkpoint."""
    settings: dict[str, Any]
    """All settings of the stepper."""
    calls: int
    """Network calls for each day of a member."""
    fair_crps: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By headline channel, on each day of the table."""
    spread_skill: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def chosen(self) -> Chosen:
        """Returns what loads it."""
        return Chosen(self.stepper, self.settings)

    def __str__(self) -> str:
        return f"{self.calls} ({self.stepper or OWN})"


@dataclass(frozen=True)
class SkillTable:
    """Holds the choices of a model with their scores on the same forecasts."""

    days: tuple[int, ...]
    made_of: dict[str, str]
    """The truth, the initial times and the number of members of the forecasts that were scored, and the region."""
    choices: tuple[Choice, ...]

    @cached_property
    def crps(self) -> Float[np.ndarray, "choice day"]:
        """Returns the fair CRPS in that of the best choice, by channel and day, averaged over channels."""
        scores = np.array([list(choice.fair_crps.values()) for choice in self.choices])
        mean: Float[np.ndarray, "choice day"] = (scores / scores.min(axis=0)).mean(axis=1)
        return mean

    @property
    def ranked(self) -> list[Choice]:
        """Returns the choices, the one with the least CRPS first."""
        return [self.choices[index] for index in np.argsort(self.crps.mean(axis=1), kind="stable")]

    def describe(self, seconds: Sequence[float | None], chosen: Choice | None = None) -> str:
        """Writes a line for each choice, with the seconds that its networks take; `*` marks the chosen one.

        None is marked where the chosen one has other settings than those that were measured.
        """
        days = " ".join(f"{day:>4}" for day in self.days)
        lines = [
            f"{'choices':<24}{'calls/day':>9}{'seconds':>10}   CRPS of best, day {days}   spread/skill, day {days}",
        ]
        for choice, crps, needed in zip(self.choices, self.crps, seconds, strict=True):
            spread = np.mean(list(choice.spread_skill.values()), axis=0)
            scores = [" ".join(f"{value:4.2f}" for value in values) for values in (crps, spread)]
            is_chosen = chosen is not None and choice.chosen == chosen.chosen
            mark, time = "*" if is_chosen else " ", "" if needed is None else f"{needed:.3g}"
            name = f"{mark} {choice.stepper or OWN}"
            lines.append(f"{name:<24}{choice.calls:>9}{time:>10}   {'':17} {scores[0]}   {'':17} {scores[1]}")
        made_of = ", ".join(f"{name} {text}" for name, text in self.made_of.items())
        return "\n".join([*lines, f"  measured: {made_of}; means over {', '.join(self.choices[0].fair_crps)}"])


def read_table(folder: Path) -> SkillTable | None:
    """Reads the table of skill in a model's folder; returns None where there is none.

    Raises:
        ValueError: it is damaged, or a stepper is missing or has other weights than those that were scored.
    """
    from pydantic import TypeAdapter

    if not (folder / SKILL).is_file():
        return None
    content = read_document(folder, SKILL)
    with describing("the skill of steppers", folder / SKILL):
        table: SkillTable = TypeAdapter(SkillTable).validate_python(content)
    for choice in table.choices:
        found = checkpoint_hash(folder / choice.stepper)[:HASH_DIGITS]
        if found != choice.weights:
            raise ValueError(
                f"{folder / SKILL} tells of weights {choice.weights}, but those of {folder / choice.stepper} are "
                f"{found}. Copy the model again, or make the table again with `ladcast weights join`."
            )
    return table


def list_choices(folder: Path) -> list[Choice]:
    """Returns the choices of a model, the best first: those of its table, else its own stepper as it is."""
    table = read_table(folder)
    return [describe_choice(folder, Chosen("", {}))] if table is None else table.ranked


def describe_choice(folder: Path, chosen: Chosen, scores: Mapping[str, Any] | None = None) -> Choice:
    """Says of a stepper with settings what the others are and how often they call the network."""
    path = folder / chosen.stepper
    stepper = sketch_stepper(path).with_settings(**chosen.settings)
    calls = stepper.config.frames.calls(1) * stepper.calls
    weights = checkpoint_hash(path)[:HASH_DIGITS]
    return Choice(chosen.stepper, weights, stepper.settings(), calls, **(scores or {}))


def choose_calls(folder: Path, calls: int | None, settings: Mapping[str, Any]) -> Chosen:
    """Returns the best choice of so many network calls a day, with `settings` that win over those of the table.

    Where the table has none, the model's own stepper is asked whether it can. None: it is taken as it is.

    Raises:
        ValueError: there is no such choice; the message lists those that there are.
    """
    if calls is None:
        return Chosen("", dict(settings))
    table = read_table(folder)
    for choice in [] if table is None else table.ranked:
        if choice.calls == calls:
            return Chosen(choice.stepper, {**choice.settings, **settings})
    own = sketch_stepper(folder)
    steps_a_day = own.config.frames.calls(1)
    measured = "" if table is None else f"Measured are {', '.join(map(str, table.choices))} calls a day. "
    if calls % steps_a_day:
        raise ValueError(
            f"{measured}The model makes {steps_a_day} steps a day, and no whole number of --calls in each."
        )
    try:
        return Chosen("", {**own.settings_for(calls // steps_a_day), **settings})
    except ValueError as error:
        times = f" (a day has {steps_a_day})" if steps_a_day > 1 else ""
        raise ValueError(f"There is no forecast of {calls} network calls a day. {measured}{error}{times}") from None


def sketch_stepper(folder: Path) -> Stepper:
    """Builds the stepper of a folder without its weights, to ask it what it can."""
    config = read_config(folder)
    with torch.device("meta"):
        stepper: Stepper = find_stepper(config.stepper.kind).build(config.stepper)
    return stepper


def join_steppers(
    folder: Path, scores: Sequence[Path], steppers: Sequence[Path] = (), *, overwrite: bool = False
) -> Path:
    """Writes the table of a model from scores of forecasts by its stepper and others, which are copied into its folder.

    Each file of scores says by whose weights and with which settings its forecasts were made.

    Args:
        folder: that of the model.
        scores: files that `ladcast evaluate` or `merge` wrote, of the same truth, regions, initial times, start states
            and members; each of another stepper or other settings.
        steppers: folders of further models of the same channels and grid.
        overwrite: replace a table, and steppers of the same names.

    Raises:
        FileExistsError: there is a table, or another stepper of the same name.
        ValueError: scores are not comparable, or of another model, or given twice; a stepper does not fit the model, or
            two have folders of one name.
    """
    if (folder / SKILL).exists() and not overwrite:
        raise FileExistsError(f"{folder / SKILL} exists already. Add --overwrite to replace it.")
    places = {checkpoint_hash(path)[:HASH_DIGITS]: path for path in (*steppers, *further_steppers(folder), folder)}
    measured = [_read_scores(path) for path in scores]
    first = measured[0]
    remedy = (
        "Evaluate all choices on the same store, with the same --start, --end, --every, --members, --days, --regions "
        "and --analyses."
    )
    used: dict[str, Path] = {}
    for one in measured:
        require_same(first.made_of, one.made_of, str(one.path), remedy=remedy)
        if one.weights not in places:
            raise ValueError(
                f"{one.path} is of the model {one.model}; there are "
                f"{', '.join(f'{path} ({weights})' for weights, path in places.items())}. "
                "Name its folder with --steppers."
            )
        used[one.weights] = places[one.weights]
    choices = _describe(folder, measured, used)
    for path in used.values():
        _require_joinable(folder, path, overwrite=overwrite)
    for weights, path in used.items():
        place = folder / _name_within(folder, path)
        if place.resolve() != path.resolve():
            copy_checkpoint(path, place)
        if (found := checkpoint_hash(place)[:HASH_DIGITS]) != weights:
            raise ValueError(f"{place}: expected the weights {weights}, got {found}. Copy {path} again.")
    made_of = {
        "truth": Path(first.made_of["truth"]).name,
        **{name: first.made_of[name] for name in ("region", "starts", "members")},
    }
    table = SkillTable(first.days, made_of, tuple(sorted(choices, key=lambda choice: choice.calls)))
    with whole_file(folder / SKILL) as partial:
        partial.write_text(yaml.safe_dump(plain(asdict(table)), sort_keys=False, default_flow_style=None))
    list_data(folder, SKILL)
    return folder / SKILL


class _Measured(NamedTuple):
    """What a file of scores says of one model."""

    path: Path
    model: str
    settings: dict[str, Any]
    days: tuple[int, ...]
    made_of: dict[str, str]
    scores: dict[str, dict[str, tuple[float, ...]]]

    @property
    def weights(self) -> str:
        return self.model.rpartition("@")[2]


def _read_scores(path: Path) -> _Measured:
    """Reads the headline scores of the model that a file of scores is of."""
    ds = read_netcdf(path, decode_timedelta=True)
    lacking = [name for name in ("model", SETTINGS) if name not in ds.attrs]
    if not holds_scores(ds) or lacking or METRICS[0] not in ds:
        what = f", but without {', '.join(lacking)}" if lacking else ""
        raise ValueError(
            f"{path}: expected scores of an ensemble of at least 2 members, as `ladcast evaluate` writes them{what}. "
            "Evaluate the model again, without --members 1."
        )
    model = str(ds.attrs["model"])
    system = model.partition("@")[0].rpartition("/")[2]
    if model.count("@") != 1 or system not in ds["system"]:  # merged sums of several models name all of them
        raise ValueError(f"{path}: expected the scores of one model, got those of {model}. Merge each model by itself.")
    first = ds.sel(system=system, season="all").isel(region=0)
    leads = first["prediction_timedelta"].values
    days = tuple(day for day in DAYS if day * DAY in leads)
    wanted = [channel.name for channel in HEADLINE_CHANNELS]
    held = [name for name in first["channel"].values.tolist() if name in wanted]
    if not days or not held:
        raise ValueError(f"{path}: expected scores of headline channels on days {DAYS}. Evaluate longer forecasts.")
    times = str(ds.attrs["initial_times"]).split()
    return _Measured(
        path,
        model=model,
        settings=parse_json(str(ds.attrs[SETTINGS]), f"{path}: its settings"),
        days=days,
        made_of={
            "truth": str(ds.attrs["truth"]),
            "analyses": str(ds.attrs.get("analyses", "")),
            "region": str(first["region"].item()),
            "starts": f"{len(times)} from {times[0]} to {times[-1]}",
            "members": f"{float(first['members']):g}",
            "channels": ", ".join(held),
            "days": ", ".join(map(str, days)),
        },
        scores={metric: dict(_by_channel(first[metric], held, days, path)) for metric in METRICS},
    )


def _by_channel(
    scores: xr.DataArray, channels: Sequence[str], days: Sequence[int], path: Path
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yields the scores of each channel in six digits; raises ValueError where one is not finite."""
    at = scores.sel(prediction_timedelta=[day * DAY for day in days])
    for channel in channels:
        values = tuple(float(f"{value:.6g}") for value in at.sel(channel=channel).values)
        if not np.isfinite(values).all():
            raise ValueError(
                f"{path}: expected a finite {scores.name} of {channel} on days {', '.join(map(str, days))}, got "
                f"{', '.join(map(str, values))}. Evaluate the model again, with at least 2 --members."
            )
        yield channel, values


def _describe(folder: Path, measured: Sequence[_Measured], used: Mapping[str, Path]) -> list[Choice]:
    """Returns the choices that were measured, as they will stand in the folder of a model; nothing is copied yet.

    Raises:
        ValueError: two files are of the same choice, or two steppers have folders of the same name.
    """
    choices: list[Choice] = []
    by_name: dict[str, str] = {}
    for one in measured:
        path = used[one.weights]
        name = _name_within(folder, path)
        other = by_name.setdefault(name, one.weights)
        if other != one.weights:
            raise ValueError(
                f"Expected steppers in folders of different names, got {used[other]} and {path}: both would be copied "
                f"to {folder / name}. Rename one of them."
            )
        choice = replace(describe_choice(path, Chosen("", one.settings), one.scores), stepper=name)
        if choice.chosen in [earlier.chosen for earlier in choices]:
            twice = measured[[earlier.chosen for earlier in choices].index(choice.chosen)]
            raise ValueError(
                f"Expected one file of scores for each choice, got {twice.path} and {one.path} for {choice} with the "
                f"settings {choice.settings}. Leave one of them out."
            )
        choices.append(choice)
    return choices


def _name_within(folder: Path, path: Path) -> str:
    """Returns the name that a stepper has in the folder of a model; empty for the model's own."""
    return "" if path.resolve() == folder.resolve() else path.resolve().name


def _require_joinable(folder: Path, path: Path, *, overwrite: bool) -> None:
    """Raises an error where a stepper cannot be copied into the folder of a model, unless it is there already."""
    if folder.resolve() in (path.resolve(), path.resolve().parent):
        return
    theirs, ours = read_description(path)[1:], read_description(folder)[1:]
    if theirs != ours:
        raise ValueError(f"{path} has other channels or another grid than {folder}. Join models of the same states.")
    place = folder / _name_within(folder, path)
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} exists already. Rename {path}, or add --overwrite.")
