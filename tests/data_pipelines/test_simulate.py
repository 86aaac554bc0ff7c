"""The stage `simulate`, with the real model where it is installed."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from data_pipelines.gcm.manifest import new_manifest, read_manifest, write_manifest
from data_pipelines.simulate import SimulationOptions, simulate
from ladcast.fields import SST, VARIABLES
from ladcast.grid import Grid

TINY = SimulationOptions(days=2, segments=3, spinup_days=1, grid="32x17", truncation=21, block_frames=4, restart_days=1)


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


def test_a_store_of_other_options_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, new_manifest(SimulationOptions(seed=1).to_dict()))
    with pytest.raises(ValueError, match="seed=1, now 2"):
        simulate(tmp_path, SimulationOptions(seed=2))


def test_a_complete_store_needs_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_manifest(tmp_path, {**new_manifest(SimulationOptions().to_dict()), "status": "complete"})
    simulate(tmp_path)
    assert "complete already" in capsys.readouterr().out


@pytest.mark.skipif(util.find_spec("jcm") is not None, reason="jcm is installed")
def test_a_missing_model_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"pip install 'ladcast\[simulate\]'"):
        simulate(tmp_path / "run.zarr")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lets JAX reuse the compiled model between the runs of this file."""
    jax = pytest.importorskip("jax", reason="the nature run needs JAX: pip install 'ladcast[simulate]'")
    pytest.importorskip("jcm", reason="the nature run needs JCM: pip install 'ladcast[simulate]'")
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("jax")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


@pytest.fixture(scope="module")
def nature(compiled: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("simulate") / "nature.zarr"
    simulate(store, TINY)
    return store


@pytest.mark.slow
def test_nature_run_is_finite_weather_on_the_promised_axes(nature: Path) -> None:
    found = xr.open_zarr(nature, chunks=None)
    np.testing.assert_array_equal(found["time"], TINY.timeline.times)
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
    from data_pipelines.gcm.integrate import Integrator
    from data_pipelines.gcm.model import stack

    integrator = Integrator.build(21, Grid.parse("32x17"))
    model = integrator.model
    rest = model.at_rest(np.datetime64("2001-01-01"))
    rng = np.random.default_rng(0)
    before = stack([model.with_noise(rest, rng, amplitude_k=1.0) for _ in range(2)])
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
    assert len(manifest["segments"]) == 3
    assert manifest["gaps"][0] == ["2001-01-02T18", "2002-01-01T00"]
    stored = xr.open_zarr(nature, chunks=None)["temperature"]
    assert manifest["variables"]["temperature"]["max"] == float(stored.max())
    assert manifest["variables"]["temperature"]["mean"] == pytest.approx(float(stored.mean("time").mean()), rel=1e-5)


@pytest.mark.slow
def test_an_interrupted_run_continues_to_the_same_bits(
    nature: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_pipelines.gcm.store import ShardWriter

    write = ShardWriter.write
    store = tmp_path / "again.zarr"

    def interrupted(writer: ShardWriter, frames: Any, regions: Any, labels: Any) -> Any:
        if (labels == "segment 0 at 2001-01-02T00").any():
            write(writer, {name: -values for name, values in frames.items()}, regions, labels)
            raise KeyboardInterrupt
        return write(writer, frames, regions, labels)

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            simulate(store, TINY)
    assert read_manifest(store)["status"] == "running"
    simulate(store, TINY)
    xr.testing.assert_identical(xr.open_zarr(store, chunks=None), xr.open_zarr(nature, chunks=None))
    assert read_manifest(store) == read_manifest(nature)


def ensemble(nature: Path, store: Path, perturb: float) -> xr.Dataset:
    options = SimulationOptions(
        days=1,
        grid=TINY.grid,
        truncation=TINY.truncation,
        members=3,
        perturb=perturb,
        from_store=nature,
        at=("2001-01-02T00", "2003-01-02T00"),
        block_frames=4,
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
def test_perturbed_members_are_distinct_and_keep_the_mass_of_air(nature: Path, tmp_path: Path) -> None:
    found = ensemble(nature, tmp_path / "ensemble.zarr", perturb=0.1)
    first = found.isel(prediction_timedelta=0)
    spread = first["temperature"].std("number").mean(("time", "longitude", "latitude"))
    assert (spread > 1e-3).all()
    weights = np.cos(np.deg2rad(found["latitude"]))
    mass = np.log(first["surface_pressure"]).weighted(weights).mean(("longitude", "latitude"))
    np.testing.assert_allclose(mass.std("number"), 0, atol=2e-5)
    assert np.isfinite(found["geopotential"]).all()
    assert read_manifest(tmp_path / "ensemble.zarr")["done"] == ["2001-01-02T00", "2003-01-02T00"]
