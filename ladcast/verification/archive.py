"""Files: accumulated sums, in folders `<system>/<part>.nc` that several processes write and one merges, and scores."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ladcast.documents import read_netcdf
from ladcast.fields import Channel
from ladcast.files import whole_file
from ladcast.resumable import require_same
from ladcast.times import describe
from ladcast.verification.accumulate import Accumulator, merge_accumulators
from ladcast.verification.statistics import METRICS, STATISTICS
from ladcast.verification.statistics.base import FloatArray

SUM_DIMS = ("start", "region", "row", "prediction_timedelta")
SUM_OF = "sum_of_"
ABOUT = {
    "prediction_timedelta": {"standard_name": "forecast_period", "long_name": "lead time"},
    "start": {"standard_name": "forecast_reference_time", "long_name": "initial times that were scored"},
    "channel": {"long_name": "short name of variable and level in hPa, or of a wind vector"},
    "channel_units": {"long_name": "units of the field"},
    "region": {"long_name": "region, weighted by the areas of its cells"},
    "season": {"long_name": "season of the initial time"},
    "system": {"long_name": "forecasting system"},
}
OF_CHANNEL = {
    "field": "In the units of the channel, which the coordinate channel_units holds.",
    "field squared": "In the squared units of the channel, which the coordinate channel_units holds.",
}
"""What stands for the attribute `units`, which CF wants to be one unit for the whole array."""
CLAIMED, SYSTEMS, EXPECTED = "claimed", "systems", "initial_times"
"""Keys of a claim beside what the sums depend on."""
COMPARABLE = ("truth", "climatology", "grid", "regions", "statistics")
"""What the sums of systems that are compared should have been made with alike."""
VALUES_OF = "values of "
"""How keys of a claim begin that tell what lies at a path by its content."""
SETTINGS = "settings"
"""Key of the settings of the stepper that made forecasts, as JSON, beside `model`, its name and weights."""
LATER = (VALUES_OF, SETTINGS)
"""How keys begin that claims of earlier versions lack."""
NETCDF_NAME = re.compile(r"\w([^/]*[^/ ])?")
"""What a printable text must be to name an attribute, as the file of scores says there what it is made of."""
DIGITS = 16
MADE_OF = "made_of"
PROTOCOL = (
    "Cell areas as weights, sin(upper latitude) - sin(lower latitude). Averages over starts and area first, roots and "
    "ratios last; anomaly correlations for each start first. Fair scores divide by M(M-1)."
)


def write_sums(scores: Accumulator, path: Path, made_of: Mapping[str, str] | None = None) -> Path:
    """Writes an accumulator to a netCDF file, bit by bit; raises OSError where that is not possible.

    `made_of` is what the sums depend on: those of something else do not merge with them (`merge_sums`).
    """
    variables: dict[str, tuple[tuple[str, ...], FloatArray]] = {"weight": (SUM_DIMS, scores.weight)}
    for name, total in scores.sums.items():
        variables[SUM_OF + name] = ((*SUM_DIMS, *(axis.name for axis in STATISTICS[name].axes)), total)
    levels = [-1 if channel.level is None else channel.level for channel in scores.channels]
    coordinates = {
        "start": np.array(scores.init_times, dtype="datetime64[ns]"),
        "region": list(scores.regions),
        "variable": ("row", [channel.variable for channel in scores.channels]),
        "level": ("row", levels),
        "prediction_timedelta": np.array(scores.lead_times, dtype="timedelta64[ns]"),
    }
    attrs = {"members": float(scores.members), "axes": json.dumps(dict(scores.axes)), "title": "sums of statistics"}
    attrs |= {MADE_OF: json.dumps(dict(made_of or {}))}
    return _write(xr.Dataset(variables, coordinates, attrs), path)


def read_sums(path: Path) -> Accumulator:
    """Reads what `write_sums` wrote; raises ValueError for another file."""
    return _accumulator(read_netcdf(path, decode_timedelta=True), path)


def _accumulator(ds: xr.Dataset, path: Path) -> Accumulator:
    if "weight" not in ds or "members" not in ds.attrs:
        raise ValueError(f"{path} holds no sums of statistics. Give files that `ladcast score --sums` wrote.")
    members = float(ds.attrs["members"])
    pairs = zip(ds["variable"].values.tolist(), ds["level"].values.tolist(), strict=True)
    return Accumulator(
        sums={str(name).removeprefix(SUM_OF): ds[name].values for name in ds if str(name).startswith(SUM_OF)},
        weight=ds["weight"].values,
        channels=tuple(Channel(variable, None if level < 0 else level) for variable, level in pairs),
        lead_times=tuple(ds["prediction_timedelta"].values.astype("timedelta64[ns]")),
        init_times=tuple(ds["start"].values.astype("datetime64[ns]")),
        members=members if np.isinf(members) else int(members),
        regions=tuple(ds["region"].values.tolist()),
        axes={name: tuple(values) for name, values in json.loads(ds.attrs["axes"]).items()},
    )


def scores_dataset(systems: Mapping[str, Accumulator]) -> xr.Dataset:
    """Returns every metric of every system by (system, region, season, channel, prediction_timedelta, ...).

    The season `all` holds all starts. What a system does not have is NaN. Metrics in the units of the field have no
    attribute `units`, but a comment: `channel_units` says them for each channel.
    """
    members = {name: float(scores.members) for name, scores in systems.items()}
    each = xr.concat(
        [_by_region(scores) for scores in systems.values()],
        xr.DataArray(list(systems), dims="system", name="system"),
        join="outer",
        data_vars="all",
        coords="minimal",  # a single forecast has no ranks, and ensembles may have different numbers of them
        compat="override",
        combine_attrs="override",
    )
    units = {row: units for scores in systems.values() for row, units in scores.rows.items()}
    of_row = [units[row] for row in each["channel"].values.tolist()]
    starts = next(iter(systems.values())).init_times
    each = each.drop_attrs(deep=False).assign_attrs(initial_times=" ".join(describe(start) for start in starts))
    each = each.assign_coords(members=("system", list(members.values())), channel_units=("channel", of_row))
    each["members"].attrs = {"long_name": "ensemble members; infinite for a distribution", "units": "1"}
    axes = {axis.name: {"long_name": axis.long_name, "units": "1"} for about in METRICS.values() for axis in about.axes}
    for name, attrs in {**ABOUT, **axes}.items():
        if name in each.coords:
            each[name].attrs |= attrs
    for metric in each.data_vars.values():
        if metric.attrs.get("units") in OF_CHANNEL:
            metric.attrs["comment"] = OF_CHANNEL[metric.attrs.pop("units")]
    return each


def holds_scores(ds: xr.Dataset) -> bool:
    """Says whether a dataset is of scores, as `scores_dataset` returns them."""
    return {"system", "region", "season"} <= set(ds.dims)


def metrics_of(scores: xr.Dataset) -> dict[str, xr.Dataset]:
    """Returns the metrics of each system, all seasons of the first region, as `Accumulator.metrics` does.

    Raises:
        ValueError: these are no scores as `scores_dataset` returns.
    """
    if not holds_scores(scores):
        dims = ", ".join(map(str, scores.dims))
        raise ValueError(f"Expected scores by system, region and season, as `ladcast score` writes, got {dims}.")
    starts = np.array(str(scores.attrs.get("initial_times", "")).split(), dtype="datetime64[ns]")
    first = scores.isel(region=0).sel(season="all")
    metrics = {}
    for system in scores["system"].values.tolist():
        each = first.sel(system=system)
        held = each[[name for name, values in each.data_vars.items() if bool(values.notnull().any())]]
        metrics[system] = held.assign_coords(start=starts).assign_attrs(members=float(each["members"]))
    return metrics


def write_scores(systems: Mapping[str, Accumulator], path: Path, provenance: Mapping[str, str]) -> Path:
    """Writes `scores_dataset` to a netCDF file with CF attributes, replacing an older one when it is whole.

    `provenance` becomes global attributes: what was scored, against what, with which model and program.
    """
    attrs = {"Conventions": "CF-1.11", "title": "forecast scores", "comment": PROTOCOL, **provenance}
    return _write(scores_dataset(systems).assign_attrs(attrs), path)


def _by_region(scores: Accumulator) -> xr.Dataset:
    seasons = {"all": scores, **{name: scores.season(name) for name in scores.seasons}}
    parts = []
    for region in scores.regions:
        each = [part.metrics(region).drop_vars(["start", "channel_units"]) for part in seasons.values()]
        parts.append(xr.concat(each, xr.DataArray(list(seasons), dims="season", name="season")))
    return xr.concat(parts, xr.DataArray(list(scores.regions), dims="region", name="region"))


def _write(ds: xr.Dataset, path: Path) -> Path:
    with whole_file(path) as temporary:
        ds.to_netcdf(temporary, engine="netcdf4")
    return path


def keep_sums(systems: Mapping[str, Accumulator], folder: Path, label: str) -> Path:
    """Writes the sums of each system to `folder/<system>/<label>.nc`, those of the first last: then all are there."""
    claim = _read_claim(folder / f"{next(iter(systems))}.json")
    made_of = {key: value for key, value in claim.items() if key not in (CLAIMED, SYSTEMS, EXPECTED)}
    for name, scores in reversed(list(systems.items())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_sums(scores, folder / name / f"{label}.nc", made_of)
    return folder


def values_of(stores: Mapping[str, xr.Dataset | None]) -> dict[str, str]:
    """Says what opened stores hold, for a claim: two that have had one path are told apart, copies are not.

    Of each field the first map is read. One that no weather has counts by its name, as it may never be used.
    """
    return {f"{VALUES_OF}{name}": _digest(ds) for name, ds in stores.items() if ds is not None}


def _digest(ds: xr.Dataset) -> str:
    digest = hashlib.sha256()
    for name in sorted(map(str, ds.data_vars)):
        digest.update(name.encode())
        first = ds[name].isel({dim: 0 for dim in ds[name].dims if dim not in ("latitude", "longitude")}, drop=True)
        with suppress(ValueError):
            digest.update(np.ascontiguousarray(first.values).tobytes())
    return digest.hexdigest()[:DIGITS]


def claim_folder(
    folder: Path, systems: Sequence[str], about: Mapping[str, str], init_times: Iterable[np.datetime64] = ()
) -> None:
    """Writes beside the sums of a run's systems what they are sums of, or checks that they are of the same.

    The file is named as the first system. It also keeps the order of the systems, when the folder was claimed, and the
    initial times of all parts of all runs, so that `merge_sums` knows what is missing.

    Raises:
        ValueError: the folder holds sums that were made otherwise.
    """
    path = folder / f"{systems[0]}.json"
    held = _read_claim(path)
    if held:
        about = {key: text for key, text in about.items() if key in held or not key.startswith(LATER)}
        remedy = "Delete it to start afresh." if folder.suffix == ".partial" else "Choose another folder."
        require_same(held, about, str(folder), remedy=remedy)
    claimed = held.get(CLAIMED, datetime.now(UTC).isoformat(timespec="microseconds"))
    expected = sorted({*held.get(EXPECTED, ()), *map(describe, init_times)})
    claim = {**held, **about, CLAIMED: claimed, SYSTEMS: held.get(SYSTEMS, list(systems)), EXPECTED: expected}
    if claim != held:
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(claim, indent=1))


def read_claims(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Returns the systems of a folder of sums in the order in which they were written, and what they are sums of.

    What differs between runs is said for each of them.
    """
    claims = _claims(folder)
    order = list(dict.fromkeys(name for claim in claims for name in claim[SYSTEMS]))
    about = {}
    of_runs = (key for claim in claims for key in claim if key not in (SYSTEMS, CLAIMED, EXPECTED))
    for key in dict.fromkeys(key for key in of_runs if not key.startswith(VALUES_OF)):
        values = {claim[SYSTEMS][0]: claim[key] for claim in claims if key in claim}
        alike = len(claims) == len(values) and len(set(values.values())) == 1
        about[key] = claims[0][key] if alike else "; ".join(f"{name}: {value}" for name, value in values.items())
    return order, about


def differences(folder: Path) -> Iterator[str]:
    """Yields what the runs that wrote a folder of sums differ in, where they should be alike."""
    claims = _claims(folder)
    for key in COMPARABLE:
        values = {claim[SYSTEMS][0]: claim[key] for claim in claims if key in claim}
        if len(set(values.values())) > 1:
            named = ", ".join(f"{name} {value}" for name, value in values.items())
            advice = " Name one --climatology for all." if key == "grid" else ""
            yield f"Scored with different {key}: {named}.{advice}"


def missing_sums(folder: Path, held: Mapping[str, Accumulator]) -> Iterator[str]:
    """Yields which initial times a folder of sums lacks of those that were to be scored."""
    for claim in _claims(folder):
        for name in claim[SYSTEMS]:
            there = set(map(describe, held[name].init_times)) if name in held else set[str]()
            lacking = [start for start in claim.get(EXPECTED, ()) if start not in there]
            if lacking or name not in held:
                shown = ", ".join(lacking[:3]) + (" ..." if len(lacking) > 3 else "")
                yield (
                    f"{name}: {len(there)} of {len(there) + len(lacking)} initial times are there, without {shown}: a "
                    "part is not finished, or its sums were deleted."
                )


def _require_companions(folder: Path, held: Mapping[str, Accumulator]) -> None:
    """Raises ValueError where a system lacks what the one that it was scored with has; see `keep_sums`.

    That one is written last: without it a part is not finished, but without the others they were deleted.
    """
    for claim in _claims(folder):
        own, *others = claim[SYSTEMS]
        if own not in held:
            continue
        for name in others:
            there = set(held[name].init_times) if name in held else set()
            lacking = np.array([start for start in held[own].init_times if start not in there])
            if lacking.size:
                raise ValueError(
                    f"{folder / name} lacks sums from {describe(lacking)}, which {folder / own} has: they were "
                    "deleted. Score these initial times again."
                )


def _claims(folder: Path) -> list[dict[str, Any]]:
    return sorted(map(_read_claim, folder.glob("*.json")), key=lambda claim: str(claim[CLAIMED]))


def _read_claim(path: Path) -> dict[str, Any]:
    """Returns what a run has said of its sums, nothing where there is no such file."""
    if not path.is_file():
        return {}
    try:
        claim: dict[str, Any] = json.loads(path.read_text())
        if not {CLAIMED, SYSTEMS} <= set(claim):
            raise ValueError(f"keys {CLAIMED} and {SYSTEMS} are missing")
        if odd := [key for key in set(claim) - {CLAIMED, SYSTEMS, EXPECTED} if not isinstance(claim[key], str)]:
            raise ValueError(f"no text under '{odd[0]}'")
        if odd := [key for key in claim if not (key.isprintable() and NETCDF_NAME.fullmatch(key))]:
            raise ValueError(f"the key '{odd[0]}'")
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected what the sums beside it are made of, got {error}. Score them again."
        ) from None
    return claim


def merge_sums(folder: Path, first: str | None = None) -> tuple[dict[str, Accumulator], list[str]]:
    """Merges the sums in a folder, system by system, on the starts that all have; says what is missing or differs.

    `first` comes first, then the systems in the order in which they were written.

    Raises:
        FileNotFoundError: the folder holds no sums, or not those of `first`, or of baselines alone.
        ValueError: parts do not belong together, or were made of something else; a start is in two of them; sums of a
            part were deleted.
    """
    files = sorted(folder.glob("*/*.nc"))
    names = list(dict.fromkeys(path.parent.name for path in files))
    # what a baseline is does not depend on the model beside it
    own = {claim[SYSTEMS][0] for claim in _claims(folder)}
    if not names or (first is not None and first not in names) or (own and own.isdisjoint(names)):
        wanted = first or ", ".join(sorted(own)) or "a system"
        raise FileNotFoundError(f"{folder} holds sums of {names}, expected those of {wanted}.")
    written, _ = read_claims(folder)
    order = dict.fromkeys(name for name in (first, *written, *names) if name in names)
    merged = {
        name: merge_accumulators(_parts(folder / name, COMPARABLE if name not in own else None)) for name in order
    }
    _require_companions(folder, merged)
    cut, notes = common_starts(merged)
    return cut, [*differences(folder), *missing_sums(folder, merged), *notes]


def _parts(folder: Path, keys: Sequence[str] | None) -> Iterator[Accumulator]:
    """Yields the sums of one system; raises ValueError where two differ in what they were made of, or in these keys."""
    first = dict[str, str]()
    for path in sorted(folder.glob("*.nc")):
        ds = read_netcdf(path, decode_timedelta=True)
        made_of = json.loads(ds.attrs.get(MADE_OF, "{}"))
        made_of = {key: value for key, value in made_of.items() if keys is None or key in keys}
        first = first or made_of
        if made_of:  # older files do not say it
            require_same(first, made_of, str(path), remedy="Delete what is wrong, and score its initial times again.")
        yield _accumulator(ds, path)


def common_starts(systems: Mapping[str, Accumulator]) -> tuple[dict[str, Accumulator], list[str]]:
    """Cuts systems to the starts that all of them have, and says what was left out."""
    shared = set.intersection(*(set(scores.init_times) for scores in systems.values()))
    cut, notes = {}, []
    for name, scores in systems.items():
        chosen = np.array([start in shared for start in scores.init_times])
        if not chosen.all():
            left_out = describe(np.array(scores.init_times)[~chosen])
            notes.append(f"{name}: {chosen.sum()} of {len(chosen)} starts are compared, without {left_out}.")
        cut[name] = scores.select(chosen)
    return cut, notes
