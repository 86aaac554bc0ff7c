import json
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from xarray.backends.plugins import list_engines

from ladcast.checkpoint import MANIFEST
from ladcast.checksums import CHECKSUMS
from ladcast.commands.options import ScoreRequest, Scoring
from ladcast.commands.products import plot
from ladcast.commands.scoring import open_request, score_systems
from ladcast.commands.show import show
from ladcast.forecasting import ForecastRequest
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasts.engine import LatentEngine
from ladcast.forecasts.make import make_forecast
from ladcast.forecasts.manifest import KEY
from ladcast.forecasts.open import open_forecast
from ladcast.forecasts.redraw import redraw
from ladcast.released import ModelFolder

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(kept, tmp_path: Path) -> Path:
    """A copy of the latents that a test may change."""
    return Path(shutil.copytree(kept.latents, tmp_path / "fc.latents.zarr"))


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The engine as an installation of this checkout registers it."""
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["xarray.backends"]
    information = tmp_path / "site" / "ladcast-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ladcast\nVersion: 0\n")
    (information / "entry_points.txt").write_text(f"[xarray.backends]\nladcast = {entry['ladcast']}\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    list_engines.cache_clear()
    yield
    list_engines.cache_clear()


def rename_model(store: Path, **changes: str | None) -> None:
    (store / CHECKSUMS).unlink(missing_ok=True)  # as whoever changes a store by hand does
    metadata = json.loads((store / "zarr.json").read_text())
    for attributes in (metadata["attributes"],):
        attributes[KEY].update(changes)
    (store / "zarr.json").write_text(json.dumps(metadata))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"engine": "ladcast"}, {}], ids=["named", "guessed"])
def test_xarray_opens_latents_as_fields(options, registered, kept):
    decoded = xr.open_dataset(kept.latents, **options)
    fields = xr.open_dataset(kept.fields, decode_timedelta=True)
    assert fields["geopotential"].encoding["chunks"] == (1, 1, 2, 3, 8, 16)
    xr.testing.assert_identical(decoded.load(), fields.load())


def test_the_entry_point_is_the_engine():
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["xarray.backends"]
    module, _, name = entry["ladcast"].partition(":")
    assert getattr(import_module(module), name) is LatentEngine


@pytest.mark.slow
def test_guessing_does_not_wait_for_torch(kept):
    program = (
        "import sys; from ladcast.forecasts.engine import LatentEngine; "
        f"assert LatentEngine().guess_can_open({str(kept.latents)!r}); "
        f"assert not LatentEngine().guess_can_open({str(kept.fields)!r}); "
        "assert not LatentEngine().guess_can_open(b'CDF'); print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert not {"torch", "cartopy", "matplotlib", "diffusers"} & set(answer.stdout.split())


def test_the_mean_of_a_selection_is_that_of_the_fields(kept):
    def mean(forecast: xr.Dataset) -> xr.DataArray:
        at_day_one = forecast["geopotential"].sel(level=500, prediction_timedelta=np.timedelta64(24, "h"))
        return at_day_one.mean("number")

    xr.testing.assert_identical(mean(open_forecast(kept.latents)), mean(open_forecast(kept.fields)))


def test_options_that_other_engines_need_are_accepted(kept):
    opened = xr.open_dataset(kept.latents, engine=LatentEngine, decode_timedelta=True, drop_variables="geopotential")
    assert "geopotential" not in opened
    assert opened["prediction_timedelta"].dtype.kind == "m"


def test_a_model_is_found_where_it_lay(store: Path, home: Path):
    rename_model(store, model="renamed@" + open_forecast(store).attrs["source"].partition("@")[2])
    assert "geopotential" in open_forecast(store)


@pytest.mark.slow
def test_a_model_is_found_beside_a_store_that_was_moved_with_it(
    weather_model: ModelFolder, tmp_path: Path, home: Path
) -> None:
    (run := tmp_path / "run").mkdir()
    mine = ModelFolder(Path(shutil.copytree(weather_model.path, run / "models" / "mine")))
    request = ForecastRequest(output=run / "fc" / "fc.zarr", members=1, days=1, batch_size=1, keep="latents")
    make_forecast(request, mine)
    before = open_forecast(request.output).load()
    moved = run.rename(tmp_path / "elsewhere") / "fc" / "fc.zarr"
    xr.testing.assert_identical(open_forecast(moved).load(), before)
    assert redraw(moved, tmp_path / "again.zarr", [0], source=tmp_path / "elsewhere/models/mine/starts.nc")
    shutil.move(moved, tmp_path / "alone.zarr")
    with pytest.raises(FileNotFoundError, match=r"Looked for 'mine' and .*run/models/mine' and .*--model FOLDER"):
        open_forecast(tmp_path / "alone.zarr")


def test_a_model_is_found_among_the_installed_ones(kept, store: Path, home: Path, tmp_path: Path):
    weights = open_forecast(store).attrs["source"].partition("@")[2]
    rename_model(store, model=f"mine@{weights}", folder=str(tmp_path / "moved"), beside=None)
    ways = r"model='FOLDER'.*--model FOLDER.*LADCAST_MODELS"
    with pytest.raises(FileNotFoundError, match=rf"'mine' with weights {weights}.*{ways}"):
        open_forecast(store)
    shutil.copytree(kept.model, home / "mine")
    assert "geopotential" in open_forecast(store)


def test_a_model_is_pointed_to(kept, store: Path, home: Path, tmp_path: Path):
    weights = open_forecast(store).attrs["source"].partition("@")[2]
    rename_model(store, model=f"mine@{weights}", folder=None, beside=None)
    assert "geopotential" in open_forecast(store, model=kept.model)
    with pytest.raises(FileNotFoundError, match=r"nowhere.*'mine' with weights"):
        open_forecast(store, model=tmp_path / "nowhere")


def test_other_weights_are_refused(kept, store: Path, tmp_path: Path):
    other = Path(shutil.copytree(kept.model, tmp_path / "other"))
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["sha256"]["weights.safetensors"] = "0" * 64
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"other has weights [0-9a-f]{12}.*Point to it"):
        open_forecast(store, model=other)


@pytest.mark.slow
def test_scores_plots_and_descriptions_take_latents(kept, tmp_path: Path):
    paths = (kept.fields, kept.latents)
    request = ScoreRequest(kept.model / "truth.nc")
    fields, latents = (score_systems(open_request([path], request), [path], request, Scoring()) for path in paths)
    (scores_of_fields, *_), (scores_of_latents, *_) = fields.values(), latents.values()
    xr.testing.assert_identical(scores_of_latents.metrics(), scores_of_fields.metrics())
    page = tmp_path / "page.png"
    plot(kept.latents, output=page)  # of less than five days
    assert page.stat().st_size > 50_000
    told = ("source ", "history")
    described = [
        [sorted(line.split(", ")) for line in show(str(path))["description"].splitlines() if line[:7] in told]
        for path in paths
    ]
    assert len(described[0]) == 2
    assert described[0] == described[1]


def test_what_xarray_passes_to_every_engine_is_accepted_and_no_more(kept, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(kept.latents.parent)
    opened = xr.open_dataset(kept.latents.name, engine=LatentEngine, mask_and_scale=True, decode_times=True)
    monkeypatch.chdir("/")
    assert opened["2m_temperature"].isel(time=0, prediction_timedelta=0, number=0).notnull().all()  # decoded from here
    with pytest.raises(TypeError, match="no option cache_byte"):
        xr.open_dataset(kept.latents, engine=LatentEngine, cache_byte=1)


@pytest.mark.slow
def test_machines_that_decode_unlike_score_parts_of_the_same_latents(kept, store: Path, tmp_path: Path, monkeypatch):
    """As a GPU and a processor do in the last bits; other latents at the same path are refused, old claims hold."""
    request, decode = ScoreRequest(kept.model / "truth.nc", baselines=False), LatentCodec.decode

    def score(sums: str) -> None:
        score_systems(open_request([store], request), [store], request, Scoring(sums=tmp_path / sums))

    score("sums")
    monkeypatch.setattr(LatentCodec, "decode", lambda *given: decode(*given) * (1 + 1e-6))
    score("sums")
    claim = tmp_path / "sums" / "ladcast.json"
    latents = zarr.open_group(store, mode="a")["latent"]
    latents[:] = latents[:] + 1e-3
    (store / CHECKSUMS).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"values of latents of ladcast was '\w{16}', now '\w{16}'"):
        score("sums")
    known = json.loads(claim.read_text())
    del known["values of latents of ladcast"]
    claim.write_text(json.dumps(known | {"values of ladcast": "of decoded fields"}))
    score("sums")
    assert json.loads(claim.read_text())["values of ladcast"] == "of decoded fields"
