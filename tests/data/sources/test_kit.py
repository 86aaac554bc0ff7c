"""Every file of the kit that carries fields: it opens with the values that lie in it, or is refused for the reason."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import xarray as xr

from ladcast.data.layout import canonical_layout
from ladcast.data.lexicon import check_units
from ladcast.data.sources.files import open_files
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, LAND_SEA_MASK, LEVELS_HPA, ChannelSet

MSL, T2M = "mean_sea_level_pressure", "2m_temperature"
UPPER = ERA5_CHANNELS.upper_air
ERA40 = ChannelSet((), (MSL, "10m_u_component_of_wind", "10m_v_component_of_wind", T2M))
EDA = "era5/era5_eda_10members_zt_850_500_3deg.grib"
GRIB2 = "gfs/gfs.t12z.pgrbf120.2p5deg.grib2"
STAGE_2 = "regional/st2ml_hourly_precip"
COORDINATES = {
    **dict.fromkeys(("time", "valid_time", "timestep"), "time"),
    **dict.fromkeys(("level", "isobaricInhPa"), "level"),
    **{"latitude": "latitude", "longitude": "longitude", "lat": "latitude", "lon": "longitude"},
}
ORDER = ("time", "level", "latitude", "longitude")


def plainly(path: Path, name: str) -> np.ndarray:
    """Reads a variable with netCDF4 alone: transposed by name, south first, levels from the top."""
    with netCDF4.Dataset(path) as file:
        variable = file[name]
        dims = [COORDINATES[dim] for dim in variable.dimensions]
        values = np.ma.filled(variable[:].astype(np.float64), np.nan)
        for axis, dim in enumerate(variable.dimensions):
            if COORDINATES[dim] in ("latitude", "level"):
                values = values.take(np.argsort(file[dim][:]), axis=axis)
    return values.transpose(sorted(range(len(dims)), key=lambda axis: ORDER.index(dims[axis])))


@dataclass(frozen=True)
class Opens:
    """A file that opens, with `names` of ours to those in the file."""

    path: str
    names: dict[str, str]
    channels: ChannelSet | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """A file that is refused, with the reason."""

    path: str
    reason: str
    options: dict[str, Any] = field(default_factory=dict)


NETCDF = [
    Opens(
        "gfs/gfs_240x121_wb2names_2times.nc",
        {name: name for name in (*ERA5_CHANNELS.variables, LAND_SEA_MASK, "geopotential_at_surface")},
        ERA5_CHANNELS,
        {"complete": False},
    ),
    Opens("era5/era5_6var_2deg_hourly_20190105.nc", {name: name for name in UPPER}),
    Opens(
        "era5/era5_tl31_37lev_19590102T00.nc",
        {name: name for name in (*UPPER[:5], "sea_surface_temperature") if name != "vertical_velocity"},
    ),
    Opens("era5/era5_msl_2p5deg_6h_2025-12.nc", {MSL: "msl"}),
    Opens(
        "era40/era40_sfc_2p5deg_200207.nc",
        dict(zip(ERA40.surface, ("msl", "p10u", "p10v", "p2t"), strict=True)),
        ERA40,
        {"regular": False, "complete": False},
    ),
]
REFUSED = [
    Refused("gfs/gfs_240x121_wb2names_2times.nc", r"'vertical_velocity' at 50 hPa: expected no NaN, got 100.0% NaN"),
    Refused(GRIB2, r"expected analyses, got a forecast \(120 h from 2011-01-10T12\)"),
    Refused(GRIB2, r"at 50 hPa: expected no NaN, got 100.0% NaN at 2011-01-15T12", {"forecasts": True}),
    Refused("era5/era5_msl_0p25deg_20251201T00.nc", r"expected a coordinate 'time', got latitude, longitude"),
    Refused("era5/era5_msl_2p5deg_6h_2025-12.nc", r"expected member 3, got a single state", {"member": 3}),
    Refused(EDA, r"expected one state, got an ensemble of 10 members \(0..9\). Cut one out"),
    Refused(EDA, r"expected member 10, got the members \[0, 1", {"member": 10}),
    Refused("era40/era40_sfc_2p5deg_200207.nc", r"other steps at 2002-07-01T18 -> 2002-07-02T12"),
    Refused(
        "era40/era40_sfc_2p5deg_200207.nc", r"expected no NaN, got 100.0% NaN at 2002-07-01T18", {"regular": False}
    ),
    Refused("ensemble/ifs_ens_storm_z850_gust_51m_20131025.grib", r"an ensemble of 51 members"),
    Refused("ensemble/ifs_ens_storm_z850_gust_51m_20131025.grib", r"expected analyses, got a forecast", {"member": 0}),
    Refused(
        "ensemble/ifs_hres_storm_z850_gust_20131025.grib", r"global grid, got latitudes 43.5..66", {"forecasts": True}
    ),
    Refused("ensemble/s2s_geos_rmm1_hindcast_4m.nc", r"expected any of geopotential, .*; there are RMM1"),
    Refused("ensemble/rmm1_observed.nc", r"expected any of geopotential, .*; there are rmm1, rmm2"),
    Refused(STAGE_2, r"expected a regular latitude-longitude or Gaussian grid, got lambert"),
    Refused(f"{STAGE_2}/ST2ml2005080705.Grb_G212", r"Gaussian grid, got lambert"),
    Refused("regional/Pstorm.cdf", r"expected any of geopotential, .*; there are p"),
    Refused("regional/Ustorm.cdf", r"expected a coordinate 'time', got timestep"),
    Refused("regional/Vstorm.cdf", r"expected a coordinate 'time', got timestep"),
    Refused("regional/Tstorm.cdf", r"expected a coordinate 'time', got timestep"),
    Refused("static/ladcast_static_240x121.nc", r"expected any of geopotential, .*; there are land_sea_mask"),
    Refused("static/era5like_terrain_T63.nc", r"expected any of geopotential, .*; there are geopotential_at_surface"),
]


def test_no_file_of_fields_is_left_out(shared):
    kit = shared / "kit"
    named = {row.path for row in (*NETCDF, *REFUSED)}
    for path in kit.rglob("*"):
        fields = path.is_file() and path.parent.parent == kit and path.suffix in (".nc", ".cdf", ".grib", ".grib2")
        assert not fields or "tracks" in path.parts or str(path.relative_to(kit)) in named, f"no row for {path}"


@pytest.mark.slow
@pytest.mark.parametrize("row", NETCDF, ids=lambda row: row.path)
def test_netcdf_opens_with_its_values(shared, row):
    path = shared / "kit" / row.path
    ds = open_store(path, row.channels, **row.options)
    assert set(row.names) <= set(ds.data_vars)
    for ours, theirs in row.names.items():
        assert ds[ours].dims == tuple(dim for dim in ORDER if dim in ds[ours].dims)
        plain = plainly(path, theirs)
        np.testing.assert_allclose(ds[ours].values, plain.reshape(ds[ours].shape), rtol=1e-6, equal_nan=True)


@pytest.mark.slow
@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row.path}{row.options or ''}")
def test_a_file_that_does_not_serve_is_refused_for_the_reason(shared, row):
    if "Grb" in row.path or "grib" in row.path or row.path == STAGE_2:
        pytest.importorskip("cfgrib")
    with pytest.raises(ValueError, match=row.reason):
        open_store(shared / "kit" / row.path, **row.options).load()


def test_the_static_fields_open_with_their_values(shared):
    path = shared / "kit/static/ladcast_static_240x121.nc"
    ds = canonical_layout(open_files(path), None, str(path))
    assert len(ds) == 5
    for name in ds:
        np.testing.assert_array_equal(ds[name].values, plainly(path, name).astype(np.float32))


def test_the_orography_in_metres_is_refused_with_the_conversion(shared):
    with pytest.raises(ValueError, match=r"expected in m2 s-2, got units 'm'.*multiply by 9.80665"):
        check_units(open_files(shared / "kit/static/era5like_terrain_T63.nc"), "terrain")


def test_the_mask_of_the_terrain_opens_apart_from_the_orography_in_metres(shared):
    path = shared / "kit/static/era5like_terrain_T63.nc"
    ds = canonical_layout(open_files(path)[[LAND_SEA_MASK, "standard_deviation_of_orography"]], None, str(path))
    np.testing.assert_array_equal(ds[LAND_SEA_MASK].values, plainly(path, "lsm").astype(np.float32))
    assert ds["standard_deviation_of_orography"].shape == (96, 192)


def test_a_file_without_time_opens_once_it_has_one(shared):
    path = shared / "kit/era5/era5_msl_0p25deg_20251201T00.nc"
    ds = open_store(xr.open_dataset(path).assign_coords(time=np.datetime64("2025-12-01", "ns")))
    np.testing.assert_array_equal(ds[MSL].values[0], plainly(path, "msl"))
    coarse = open_store(shared / "kit/era5/era5_msl_2p5deg_6h_2025-12.nc")[MSL][0]
    np.testing.assert_array_equal(ds[MSL][0, ::10, ::10].values, coarse.values)


@pytest.mark.parametrize(("name", "theirs"), [("Pstorm", "p"), ("Ustorm", "u"), ("Vstorm", "v"), ("Tstorm", "t")])
def test_the_regional_storm_is_refused_as_regional_once_it_is_named(shared, name, theirs):
    times = np.datetime64("1996-01-05", "ns") + np.arange(64) * np.timedelta64(6, "h")
    raw = xr.open_dataset(shared / f"kit/regional/{name}.cdf")[[theirs]].rename({"timestep": "time", theirs: MSL})
    with pytest.raises(ValueError, match=r"expected a global grid, got latitudes 20..60|evenly spaced longitudes"):
        open_store(raw.assign_coords(time=times), ChannelSet((), (MSL,)))


@pytest.fixture(scope="module")
def cfgrib_field(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., xr.DataArray]:
    """Reads one variable with xarray and cfgrib alone; each file is indexed once."""
    pytest.importorskip("cfgrib")
    folder = tmp_path_factory.mktemp("index")

    def read(path: Path, name: str, **keys: Any) -> xr.DataArray:
        index = f"{folder / path.name}.{{short_hash}}.idx"
        options = {"indexpath": index, "filter_by_keys": {"shortName": name, **keys}}
        ds = xr.open_dataset(path, engine="cfgrib", backend_kwargs=options)
        return ds[next(iter(ds.data_vars))].sortby("latitude")

    return read


def surface_fields(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the first message of each name with ecCodes alone, south first."""
    eccodes = pytest.importorskip("eccodes")
    found: dict[str, np.ndarray] = {}
    eccodes.codes_grib_multi_support_on()  # a message may hold u and v
    with path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file)) is not None:
            name = eccodes.codes_get(message, "shortName")
            if name in names and name not in found:
                rows, columns = eccodes.codes_get(message, "Nj"), eccodes.codes_get(message, "Ni")
                assert not eccodes.codes_get(message, "jScansPositively")
                found[name] = eccodes.codes_get_values(message).reshape(rows, columns)[::-1]
            eccodes.codes_release(message)
    eccodes.codes_grib_multi_support_off()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("member", [0, 3, 9])
def test_a_member_of_the_ensemble_of_data_assimilations(shared, cfgrib_field, member):
    path = shared / "kit" / EDA
    ds = open_store(path, member=member)
    for ours, theirs in {"geopotential": "z", "temperature": "t"}.items():
        plain = cfgrib_field(path, theirs).sel(number=member).sortby("isobaricInhPa")
        np.testing.assert_array_equal(ds[ours].values, plain.transpose("time", ...).values)


@pytest.fixture(scope="module")
def ds(shared) -> xr.Dataset:
    pytest.importorskip("cfgrib")
    return open_store(shared / "kit" / GRIB2, ERA5_CHANNELS, complete=False, forecasts=True).load()


class TestGfsGrib:
    """Pressure levels, multi-field messages of u and v, heights, an accumulation: everything that GFS brings."""

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("ours", "theirs", "factor"),
        [
            ("geopotential", "gh", 9.80665),
            ("temperature", "t", 1),
            ("u_component_of_wind", "u", 1),
            ("v_component_of_wind", "v", 1),
            ("vertical_velocity", "w", 1),
        ],
    )
    def test_on_levels(self, shared, cfgrib_field, ds, ours, theirs, factor):
        plain = cfgrib_field(shared / "kit" / GRIB2, theirs, typeOfLevel="isobaricInhPa")
        levels = [level for level in LEVELS_HPA if level in plain["isobaricInhPa"]]
        there = plain.sel(isobaricInhPa=levels).values * np.float64(factor)
        np.testing.assert_allclose(ds[ours].sel(level=levels).values[0], there, rtol=1e-6)
        assert levels == list(LEVELS_HPA[1:] if theirs == "w" else LEVELS_HPA)

    @pytest.mark.slow
    def test_at_the_surface(self, shared, ds):
        names = {
            T2M: ("2t", 1),
            "10m_u_component_of_wind": ("10u", 1),
            "10m_v_component_of_wind": ("10v", 1),
            MSL: ("prmsl", 1),
            "total_precipitation_6hr": ("tp", 1e-3),
            "geopotential_at_surface": ("orog", 9.80665),
            LAND_SEA_MASK: ("lsm", 1),
        }
        plain = surface_fields(shared / "kit" / GRIB2, [theirs for theirs, _ in names.values()])
        for ours, (theirs, factor) in names.items():
            there = np.squeeze(ds[ours].values)
            np.testing.assert_allclose(there, plain[theirs] * factor, rtol=1e-6, atol=1e-12, err_msg=ours)

    @pytest.mark.slow
    def test_it_agrees_with_the_netcdf_file_at_the_points_that_both_grids_have(self, shared, ds):
        """The netCDF file was interpolated from this one to 1.5 degrees; every 7.5 degrees points coincide."""
        other = open_store(shared / "kit/gfs/gfs_240x121_wb2names_2times.nc", ERA5_CHANNELS, complete=False)
        here = ds.isel(latitude=slice(0, None, 3), longitude=slice(0, None, 3), time=0)
        there = other.sel(time=ds["time"].values[0]).isel(latitude=slice(0, None, 5), longitude=slice(0, None, 5))
        for name in (*UPPER[:1], *UPPER[2:], MSL, T2M, "total_precipitation_6hr"):
            np.testing.assert_allclose(here[name].values, there[name].values, rtol=4e-5, atol=1e-4, err_msg=name)
        # That file saturates over water, GFS over ice where it is cold: equal above freezing alone.
        warm = here["temperature"].values > 274
        ratio = here["specific_humidity"].values / np.maximum(there["specific_humidity"].values, 1e-9)
        assert abs(ratio[warm & (there["specific_humidity"].values > 1e-5)] - 1).max() < 0.01

    @pytest.mark.slow
    def test_the_approximations_say_so(self, ds):
        said = {name for name in ds if "approximate" in ds[name].attrs}
        assert said == {"specific_humidity", "sea_surface_temperature"}
        assert "ncep" in ds["specific_humidity"].attrs["derived"]
