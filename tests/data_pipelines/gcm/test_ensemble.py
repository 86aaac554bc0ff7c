from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from data_pipelines.gcm import nature_run
from data_pipelines.gcm.ensemble import APART, add_difference, season_distance_days, season_pairs, simulate
from data_pipelines.gcm.nature_run import NatureRun
from data_pipelines.gcm.timeline import SimulationOptions
from data_pipelines.manifest import damages, read_manifest, write_manifest
from data_pipelines.product import partial_folder
from ladcast.data.store import open_store
from ladcast.fields import SST, VARIABLES


@dataclass
class Spectral:
    vorticity: np.ndarray
    divergence: np.ndarray
    temperature_variation: np.ndarray
    log_surface_pressure: np.ndarray
    tracers: dict[str, np.ndarray]

    @classmethod
    def random(cls, rng: np.random.Generator) -> Spectral:
        upper = [rng.standard_normal((8, 5, 3)).astype(np.float32) for _ in range(4)]
        surface = rng.standard_normal((1, 5, 3)).astype(np.float32)
        return cls(*upper[:3], surface, {"specific_humidity": upper[3]})

    def replace(self, **changes: Any) -> Spectral:
        return dataclasses.replace(self, **changes)


def kept(segments: int = 3, days: int = 360, every: int = 10) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([f"{2001 + k}-01-01" for k in range(segments)], "datetime64[ns]")
    times = starts[:, None] + np.arange(0, days, every) * np.timedelta64(1, "D")
    return times.ravel(), np.repeat(np.arange(segments), times.shape[1])


def test_season_wraps_at_new_year() -> None:
    times = np.array(["1999-12-22", "2001-01-11", "2004-07-02"], "datetime64[ns]")
    distance = season_distance_days(times, np.datetime64("2010-01-01", "ns"))
    np.testing.assert_allclose(distance, [10.2, 10, 182], atol=0.8)


def test_pairs_are_of_the_season_and_independent() -> None:
    times, segments = kept()
    for start in (0, 17, 40, len(times) - 1):
        pairs = season_pairs(times, segments, start)
        assert (season_distance_days(times[pairs], times[start]) <= 45).all()
        for i, j in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 0], start), (pairs[:, 1], start)):
            far = np.abs(times[i] - times[j]) >= APART
            assert ((segments[i] != segments[j]) | far).all()


def test_order_of_a_pair_matters_so_that_perturbations_have_no_preferred_sign() -> None:
    pairs = {tuple(pair) for pair in season_pairs(*kept(), start=5).tolist()}
    assert pairs == {(second, first) for first, second in pairs}


def test_too_short_a_run_has_no_pairs() -> None:
    times, segments = kept(segments=1, days=40)
    with pytest.raises(ValueError, match="No two states of the season of 2001-01-01T00"):
        season_pairs(times, segments, 0)


def test_difference_is_linear_and_keeps_mass_and_arguments() -> None:
    rng = np.random.default_rng(0)
    state, first, second = (Spectral.random(rng) for _ in range(3))
    before = state.log_surface_pressure.copy()
    there = add_difference(state, first, second, scale=0.1)
    np.testing.assert_array_equal(there.log_surface_pressure[0, 0, 0], before[0, 0, 0])
    np.testing.assert_allclose(there.vorticity - state.vorticity, 0.1 * (first.vorticity - second.vorticity), atol=1e-6)
    back = add_difference(there, second, first, scale=0.1)
    np.testing.assert_allclose(back.tracers["specific_humidity"], state.tracers["specific_humidity"], atol=1e-6)
    np.testing.assert_array_equal(state.log_surface_pressure, before)


TINY = SimulationOptions(days=3, segments=3, spinup_days=1, grid="32x17", truncation=21, block_frames=3, restart_days=3)
"""As many segments as the ensembles have members, and blocks as long as theirs: one compiled model serves all."""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"days": 9}, "no multiple of block_frames=40"),
        ({"restart_days": 7}, "restart_days=7 has 28 frames"),
        ({"spinup_days": 0}, "spinup_days of at least 1"),
        ({"members": 5}, "needs members > 1, from_store and at together"),
    ],
)
def test_contradicting_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SimulationOptions(**options)


def made_before(store: Path, status: str, **options: Any) -> None:
    """Writes the manifest of a store that grew under its own name, before simulations had checksums."""
    content = {"stage": "simulate", "status": status, "options": SimulationOptions(**options).to_dict()}
    write_manifest(store / "manifest.json", content)


def test_what_an_earlier_version_finished_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_before(tmp_path, "complete")
    simulate(tmp_path)
    assert "complete already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "seed", "message"),
    [("complete", 1, "arguments.seed was 1, now 2"), ("running", 2, "begun by an earlier version")],
)
def test_another_store_of_an_earlier_version_is_refused(tmp_path: Path, status: str, seed: int, message: str) -> None:
    made_before(tmp_path, status, seed=seed)
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path, SimulationOptions(seed=2))


def test_an_ensemble_needs_a_nature_run_of_its_model(tmp_path: Path) -> None:
    options = SimulationOptions(members=2, from_store=tmp_path, at=("2001-01-01T00",))
    with pytest.raises(ValueError, match="Expected a nature run as from_store"):
        simulate(tmp_path / "ensemble.zarr", options)
    made_before(tmp_path, "complete", truncation=42)
    with pytest.raises(ValueError, match="truncation=42, the ensemble 31"):
        simulate(tmp_path / "ensemble.zarr", options)


def test_units_follow_each_other_through_spin_up_and_weather() -> None:
    options = SimulationOptions(days=4, segments=2, spinup_days=11, block_frames=8, restart_days=4)
    units = NatureRun(options).units()
    assert [(unit.first, unit.stop) for unit in units] == [(-44, -4), (-4, 0), (0, 8), (8, 16)]
    assert [unit.follows for unit in units] == [False, True, True, True]
    assert units[1].label == "spin-up, 2000-12-31T00 to 2000-12-31T18"
    assert units[3].label == "2001-01-03T00 to 2001-01-04T18"


@pytest.mark.skipif(util.find_spec("jcm") is not None, reason="jcm is installed")
def test_a_missing_model_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"pip install 'ladcast\[simulate\]'"):
        simulate(tmp_path / "run.zarr")


@pytest.fixture(scope="module")
def compiled(request: pytest.FixtureRequest) -> None:
    """Keeps the compiled model, most of what these tests cost, in pytest's cache for the next time."""
    jax = pytest.importorskip("jax", reason="the nature run needs JAX: pip install 'ladcast[simulate]'")
    pytest.importorskip("jcm", reason="the nature run needs JCM: pip install 'ladcast[simulate]'")
    jax.config.update("jax_compilation_cache_dir", str(request.config.cache.mkdir("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="module")
def nature(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("simulate") / "nature.zarr"
    simulate(store, TINY)
    return store


@pytest.mark.slow
def test_nature_run_is_finite_weather_on_the_promised_axes(nature: Path) -> None:
    found = xr.open_zarr(nature, chunks=None)
    np.testing.assert_array_equal(found["time"], TINY.times)
    land = found["land_sea_mask"] > 0.5
    assert 0.2 < float(land.mean()) < 0.5
    assert (np.isnan(found[SST]) == land).all()
    for name in VARIABLES:
        if name != SST:
            assert np.isfinite(found[name]).all()
    weights = np.cos(np.deg2rad(found["latitude"]))
    pressure = found["mean_sea_level_pressure"].weighted(weights).mean(("longitude", "latitude"))
    assert (abs(pressure - 101100) < 300).all()
    assert (found["total_precipitation_6hr"] >= 0).all()
    assert (found["geopotential"].diff("level") < 0).all()


@pytest.mark.slow
def test_the_mass_of_air_stays(compiled: None) -> None:
    from data_pipelines.gcm.model import side_by_side

    integrator = nature_run.compiled_integrator(TINY)
    model = integrator.model
    rest = model.at_rest(np.datetime64("2001-01-01"))
    rng = np.random.default_rng(0)
    before = side_by_side(model.with_noise(rest, rng, amplitude_k=1.0) for _ in range(3))
    after = integrator.advance(before, 8)

    def masses(weather: Any) -> np.ndarray:
        pressure = np.exp(model.horizontal.to_nodal(weather.dynamics.log_surface_pressure)[:, 0])
        return np.asarray(model.horizontal.integrate(pressure))

    assert abs(after.dynamics.log_surface_pressure - before.dynamics.log_surface_pressure).max() > 1e-3
    np.testing.assert_allclose(masses(after), masses(before), rtol=1e-6)


@pytest.mark.slow
def test_poles_hold_one_scalar_and_one_wind_vector(nature: Path) -> None:
    poles = xr.open_zarr(nature, chunks=None).isel(latitude=[0, -1])
    for name in ("2m_temperature", "mean_sea_level_pressure", "vertical_velocity", "temperature"):
        spread = poles[name].std("longitude")
        assert float(spread.max()) <= 1e-4 * float(abs(poles[name]).max())
    wind = poles["u_component_of_wind"] ** 2 + poles["v_component_of_wind"] ** 2
    np.testing.assert_allclose(poles["u_component_of_wind"].mean("longitude"), 0, atol=1e-4)
    assert np.isfinite(wind).all()


@pytest.mark.slow
def test_segments_are_different_weather(nature: Path) -> None:
    temperature = xr.open_zarr(nature, chunks=None)["temperature"].sel(level=850).values
    first, second, third = np.split(temperature, 3)
    for one, other in ((first, second), (second, third)):
        assert np.abs(one - other).std() > 0.1


@pytest.mark.slow
def test_manifest_describes_a_complete_run(nature: Path) -> None:
    manifest = read_manifest(nature)
    assert manifest["status"] == "complete"
    assert manifest["gaps"] == [["2001-01-03T18", "2002-01-01T00"], ["2002-01-03T18", "2003-01-01T00"]]
    assert open_store(nature).sizes["time"] == 36
    assert not list(damages(nature, manifest))
    assert sorted(path.stem for path in (nature / "restart/states").iterdir()) == ["block_00000", "block_00004"]
    stored = xr.open_zarr(nature, chunks=None)["temperature"]
    assert manifest["variables"]["temperature"]["max"] == float(stored.max())
    assert manifest["variables"]["temperature"]["mean"] == pytest.approx(float(stored.mean("time").mean()), rel=1e-5)


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_bits(
    nature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = nature_run.write_frames, []
    store = tmp_path / "again.zarr"

    def interrupted(folder: Path, pieces: Any) -> Any:
        calls.append(folder)
        if len(calls) == 2:
            write(folder, ((name, region, -values) for name, region, values in pieces))
            raise KeyboardInterrupt
        return write(folder, pieces)

    with monkeypatch.context() as patch:
        patch.setattr(nature_run, "write_frames", interrupted)
        with pytest.raises(KeyboardInterrupt):
            simulate(store, TINY)
    assert read_manifest(partial_folder(store))["status"] == "running"
    simulate(store, TINY)
    assert read_manifest(store) == read_manifest(nature)  # with the checksums of all files


def ensemble(nature: Path, store: Path, perturb: float, analysis_error: float = 0) -> xr.Dataset:
    options = SimulationOptions(
        days=1,
        grid=TINY.grid,
        truncation=TINY.truncation,
        members=3,
        perturb=perturb,
        analysis_error=analysis_error,
        from_store=nature,
        at=("2001-01-01T00", "2003-01-01T00"),
        block_frames=3,
    )
    simulate(store, options)
    return xr.open_zarr(store, chunks=None)


@pytest.mark.slow
def test_an_unperturbed_ensemble_repeats_the_nature_run(nature: Path, tmp_path: Path) -> None:
    found = ensemble(nature, tmp_path / "ensemble.zarr", perturb=0)
    truth = xr.open_zarr(nature, chunks=None)
    assert found["temperature"].dims == (
        "time", "number", "prediction_timedelta", "level", "longitude", "latitude",
    )  # fmt: skip
    assert found["prediction_timedelta"].dtype == "timedelta64[ns]"
    for start in found["time"].values:
        leads = found["prediction_timedelta"].values[:4]
        for name in ("geopotential", "10m_u_component_of_wind", "total_precipitation_6hr"):
            forecast = found[name].sel(time=start).isel(prediction_timedelta=slice(4))
            expected = truth[name].sel(time=start + leads).values
            scale = float(np.abs(expected).max())
            for member in range(3):
                np.testing.assert_allclose(forecast[member].values, expected, atol=2e-3 * scale)


@pytest.mark.slow
def test_members_share_the_error_of_their_analysis(nature: Path, tmp_path: Path) -> None:
    found = ensemble(nature, tmp_path / "ensemble.zarr", perturb=0, analysis_error=0.1)
    first = found.isel(prediction_timedelta=0)["temperature"]
    truth = xr.open_zarr(nature, chunks=None)["temperature"].sel(time=found["time"])
    assert first.std("number").max() < 1e-4
    assert (abs(first.isel(number=0) - truth).mean(("longitude", "latitude")) > 1e-3).all()
    assert "analysis_error" not in SimulationOptions().to_dict()


@pytest.mark.slow
def test_perturbed_members_are_distinct_and_keep_the_mass_of_air(nature: Path, tmp_path: Path) -> None:
    found = ensemble(nature, tmp_path / "ensemble.zarr", perturb=0.1)
    first = found.isel(prediction_timedelta=0)
    spread = first["temperature"].std("number").mean(("time", "longitude", "latitude"))
    assert (spread > 1e-3).all()
    weights = np.cos(np.deg2rad(found["latitude"]))
    mass = np.log(first["surface_pressure"]).weighted(weights).mean(("longitude", "latitude"))
    np.testing.assert_allclose(mass.std("number"), 0, atol=2e-5)
    assert np.isfinite(found["geopotential"]).all()
    variables = read_manifest(tmp_path / "ensemble.zarr")["variables"]
    assert list(variables) == ["2001-01-01T00", "2003-01-01T00"]
