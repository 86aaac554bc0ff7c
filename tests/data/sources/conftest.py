"""Writes small GRIB files as the centres write them, from the samples that ecCodes brings."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Field = tuple[dict[str, Any], np.ndarray]
LEVEL = {"typeOfLevel": "isobaricInhPa"}
GRID = {
    **{"Ni": 16, "Nj": 9, "iDirectionIncrementInDegrees": 22.5, "jDirectionIncrementInDegrees": 22.5},
    **{"latitudeOfFirstGridPointInDegrees": 90, "latitudeOfLastGridPointInDegrees": -90},
    **{"longitudeOfFirstGridPointInDegrees": 0, "longitudeOfLastGridPointInDegrees": 337.5},
}


@pytest.fixture
def write_grib() -> Callable[[Path, Iterable[Field]], Path]:
    """Returns a function that writes fields (keys, values north to south) on a 16 x 9 grid to a GRIB file."""
    eccodes = pytest.importorskip("eccodes")

    def write(path: Path, fields: Iterable[Field]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for keys, values in fields:
                handle = eccodes.codes_grib_new_from_samples(f"regular_ll_pl_grib{keys.get('edition', 2)}")
                for key, value in (GRID | {"dataDate": 20200101, "dataTime": 0, "bitsPerValue": 24} | keys).items():
                    if key != "edition":
                        eccodes.codes_set(handle, key, value)
                eccodes.codes_set_values(handle, np.broadcast_to(values, (9, 16)).astype(float).ravel())
                eccodes.codes_write(handle, file)
                eccodes.codes_release(handle)
        return path

    return write


@pytest.fixture
def state_fields() -> Callable[..., list[Field]]:
    """Returns a function that makes plausible fields of one analysis, by ecCodes names."""

    def fields(names: Iterable[str], levels: Iterable[int] = (500, 850), **keys: Any) -> list[Field]:
        generator = np.random.default_rng(0)
        size = {"gh": {500: 5600.0, 850: 1450.0}, "z": {500: 5.5e4, 850: 1.4e4}, "t": {500: 255.0, 850: 278.0}}
        size |= {"q": {500: 8e-4, 850: 5e-3}, "r": {500: 40.0, 850: 60.0}}
        surface = {"2t": 287.0, "msl": 101_100.0, "prmsl": 101_100.0, "skt": 288.0}
        land = (np.arange(16) < 6) * np.ones((9, 1))
        made: list[Field] = []
        for name in names:
            if name in ("lsm", "ci"):
                made.append(
                    ({"shortName": name, "typeOfLevel": "surface", **keys}, land if name == "lsm" else 0 * land)
                )
            elif name in surface:
                made.append(({"shortName": name, **keys}, surface[name] + generator.standard_normal((9, 16))))
            else:
                for level in levels:
                    mean = size.get(name, {}).get(level, 0.0)
                    noise = 0.01 * (mean or 1.0) * generator.standard_normal((9, 16))
                    made.append(({"shortName": name, **LEVEL, "level": level, **keys}, mean + noise))
        return made

    return fields


@pytest.fixture(scope="session")
def gfs_analysis(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The forecast of GFS in the kit, with headers of an analysis of its time."""
    eccodes = pytest.importorskip("eccodes")
    path = tmp_path_factory.mktemp("gfs") / "gfs.grib2"
    as_analysis = {"dataDate": 20110115, "dataTime": 1200, "startStep": 0, "endStep": 0}
    eccodes.codes_grib_multi_support_on()  # a message may hold u and v
    with (shared / "kit/gfs/gfs.t12z.pgrbf120.2p5deg.grib2").open("rb") as file, path.open("wb") as copy:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            if eccodes.codes_get(message, "stepType") == "instant":
                for key, value in as_analysis.items():
                    eccodes.codes_set(message, key, value)
            eccodes.codes_write(message, copy)
            eccodes.codes_release(message)
    eccodes.codes_grib_multi_support_off()
    return path
