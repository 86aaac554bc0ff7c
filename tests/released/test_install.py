"""Released weights become a model: exactly, whole, or not at all."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr
from safetensors.torch import load_file

import ladcast.released as release
from ladcast.checkpoint import MANIFEST, read_document
from ladcast.cli import app, run
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.models.autoencoder import Autoencoder
from ladcast.models.pretrained import CONFIG_FILE, WEIGHTS_FILE
from ladcast.models.transformer import LatentTransformer
from ladcast.released import Assets, Location, find_model
from ladcast.released.install import describe_config, fetch_weights, import_weights, show_weights, verify_weights


@pytest.fixture
def model(released: Path, assets: Assets, home: Path) -> Path:
    return import_weights("tiny", released / "V9/transformer", released / "V9/autoencoder", assets)


def test_no_number_changes_on_the_way(model: Path, released: Path):
    forecaster = load_forecaster(model, "cpu")
    for ours, theirs in (
        (forecaster.stepper.network.network, LatentTransformer.from_pretrained(released / "V9/transformer")),
        (forecaster.codec.autoencoder, Autoencoder.from_pretrained(released / "V9/autoencoder")),
    ):
        expected = theirs.state_dict()
        assert ours.config == theirs.config
        assert ours.state_dict().keys() == expected.keys()
        assert all(torch.equal(tensor, expected[name]) for name, tensor in ours.state_dict().items())


def test_the_sample_of_an_installed_model_is_the_published_one(model: Path, shared: Path):
    """The golden Heun sample, through the forecaster that `ladcast forecast` uses."""
    golden = load_file(shared / "golden" / "transformer_io.safetensors")
    forecaster = load_forecaster(model, "cpu")
    stamp = str(int(golden["init_time_yyyymmddhh"][0]))
    time = xr.date_range(f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}T{stamp[8:]}", periods=1).values[0]
    sampling = forecaster.with_settings(steps=5)
    sample = sampling.step(golden["conditioning"][:1], time, golden["sampler_noise"].float())
    expected = golden["sampler_output"].float()
    assert float((sample - expected).abs().max() / expected.abs().max()) < 1e-5


def test_the_manifest_says_where_it_comes_from(model: Path, released: Path):
    manifest = read_document(model, MANIFEST)
    assert manifest["origin"]["transformer"].endswith("V9/transformer")
    assert set(manifest["imported"]["autoencoder"]) == {WEIGHTS_FILE}


@pytest.mark.slow
def test_an_installed_model_is_found_shown_and_forecasts(
    model: Path, shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert find_model("tiny").path == model
    assert "tiny" in show_weights()
    source = shared / "kit/gfs/gfs_240x121_wb2names_2times.nc"
    output = str(tmp_path / "fc.zarr")
    options = ["--members", "1", "--days", "1", "--steps", "5", "--batch-size", "1"]
    run(app, ["forecast", "2011-10-11T00", "--source", str(source), "--model", "tiny", "--output", output, *options])
    forecast = xr.open_zarr(output, chunks=None, decode_timedelta=True)
    assert forecast["temperature"].notnull().all()
    assert forecast["sea_surface_temperature"].isnull().any()
    assert "tiny@" in forecast.attrs["source"]


def test_verification_finds_damage_and_says_what_is_whole(model: Path, released: Path):
    assert "every file has its SHA-256" in verify_weights("tiny")
    assert "whole transformer" in verify_weights(str(released / "V9/transformer"))
    (model / "grid.yaml").write_text("latitude: []")
    with pytest.raises(ValueError, match=r"grid\.yaml is incomplete or changed"):
        verify_weights("tiny")


@pytest.mark.slow
def test_a_model_is_fetched_by_name_and_remembers_its_commit(hub, assets: Assets, home: Path):
    location = Location(repository=hub.name, transformer="V9/transformer", autoencoder="V9/autoencoder")
    folder = fetch_weights("tiny", location, assets, endpoint=hub.endpoint)
    assert read_document(folder, MANIFEST)["licence"] == "not known here; see the repository"
    assert read_document(folder, MANIFEST)["origin"] == {
        "repository": hub.name,
        "commit": hub.commit,
        "folders": {"transformer": "V9/transformer", "autoencoder": "V9/autoencoder"},
    }
    assert not any(name.endswith(".bin") for name in hub.fetched)


@pytest.mark.slow
def test_the_folder_of_a_network_is_found_by_its_size(hub, assets: Assets, home: Path, monkeypatch):
    sizes = {kind: describe_config(hub.root / "V9" / kind / CONFIG_FILE)[1] for kind in ("transformer", "autoencoder")}
    known = {"repository": hub.name, **{f"{kind}_parameters": size for kind, size in sizes.items()}}
    monkeypatch.setattr(release, "read_registry", lambda: {"tiny": known})
    assert fetch_weights("tiny", Location(), assets, endpoint=hub.endpoint) == home / "tiny"
    known["transformer_parameters"] = 7
    with pytest.raises(ValueError, match=r"expected one transformer of 7 parameters, got none.*--transformer"):
        fetch_weights("tiny", Location(), assets, endpoint=hub.endpoint, overwrite=True)


def test_a_repository_is_described(hub):
    shown = show_weights(hub.name, "main", endpoint=hub.endpoint)
    assert hub.commit in shown
    assert "V9/transformer" in shown
    assert "transformer " in shown
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_an_unknown_model_is_not_fetched(home: Path):
    with pytest.raises(ValueError, match=r"Unknown model 'ladcast-7b'.*ladcast-375m.*--repository"):
        fetch_weights("ladcast-7b", Location(), Assets())


def truncate(folder: Path) -> None:
    (folder / WEIGHTS_FILE).write_bytes((folder / WEIGHTS_FILE).read_bytes()[:-1000])


def only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "diffusion_pytorch_model.bin")


def without_config(folder: Path) -> None:
    (folder / CONFIG_FILE).unlink()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["transformer", "autoencoder"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [(truncate, "is damaged"), (only_a_pickle, "convert them to safetensors"), (without_config, "is missing")],
)
def test_nothing_is_installed_from_a_damaged_folder(damage, message, kind, released: Path, assets: Assets, home: Path):
    damage(released / "V9" / kind)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        import_weights("tiny", released / "V9/transformer", released / "V9/autoencoder", assets)
    assert not home.exists()


@pytest.mark.slow
def test_wrong_networks_are_named(released: Path, assets: Assets, home: Path):
    transformer, autoencoder = released / "V9/transformer", released / "V9/autoencoder"
    with pytest.raises(ValueError, match=r"expected the transformer of tiny, got autoencoder"):
        import_weights("tiny", autoencoder, transformer, assets)
    with pytest.raises(ValueError, match=r"transformer of ladcast-375m with 374,938,452 parameters, got"):
        import_weights("ladcast-375m", transformer, autoencoder, assets)
    with pytest.raises(ValueError, match=r"expects 12 channels, got 84"):
        import_weights("tiny", transformer, autoencoder, replace(assets, channels="era5"))
    with pytest.raises(ValueError, match=r"expects 5 static fields, got 1"):
        import_weights("tiny", transformer, autoencoder, replace(assets, static_fields=("land_sea_mask",)))
    with pytest.raises(ValueError, match=r"expected 12 values of mean.*got 84.*--latent-statistics"):
        import_weights("tiny", transformer, autoencoder, replace(assets, latent_statistics=Assets.latent_statistics))
    with pytest.raises(ValueError, match="Expected the name of a model"):
        import_weights("../tiny", transformer, autoencoder, assets)
    assert not home.exists()


def test_a_released_model_that_is_not_there_says_how_to_get_it(home: Path):
    with pytest.raises(FileNotFoundError, match=r"weights fetch ladcast-375m.*weights import ladcast-375m"):
        find_model("ladcast-375m")
    assert "not installed" in show_weights()


def test_importing_again_replaces_the_model_when_the_new_one_is_whole(model: Path, released: Path, assets: Assets):
    before = read_document(model, MANIFEST)["sha256"]
    shutil.copy(model / "grid.yaml", model / "stray.yaml")
    networks = released / "V9/transformer", released / "V9/autoencoder"
    with pytest.raises(FileExistsError, match="add --overwrite"):
        import_weights("tiny", *networks, assets)
    again = import_weights("tiny", *networks, assets, overwrite=True)
    assert read_document(again, MANIFEST)["sha256"] == before
    assert not (again / "stray.yaml").exists()
