"""Released weights: golden outputs, every published key and shape both ways, errors that name the cause."""

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ladcast.models.autoencoder import Autoencoder
from ladcast.models.pretrained import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, Pretrained
from ladcast.models.transformer import LatentTransformer

KINDS: dict[str, type[Pretrained]] = {"transformer": LatentTransformer, "autoencoder": Autoencoder}
SIGMA_DATA = 0.5


def relative_error(ours: Tensor, golden: Tensor) -> float:
    return float((ours - golden).abs().max() / golden.abs().max())


def epoch_seconds(stamps: Tensor) -> Tensor:
    """Reads the golden files' YYYYMMDDHH."""
    texts = [str(stamp) for stamp in stamps.tolist()]
    times = np.array([f"{t[:4]}-{t[4:6]}-{t[6:8]}T{t[8:]}" for t in texts], dtype="datetime64[s]")
    return torch.from_numpy(times.astype(np.int64))


@pytest.fixture(params=["transformer", "autoencoder"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(shared: Path, tmp_path: Path, kind: str) -> Path:
    """A released folder of that kind, small, that a test may damage."""
    shutil.copyfile(shared / "golden" / f"{kind}_config.json", tmp_path / CONFIG_FILE)
    shutil.copyfile(shared / "golden" / f"{kind}.safetensors", tmp_path / WEIGHTS_FILE)
    return tmp_path


def load(kind: str, folder: Path) -> Any:
    return KINDS[kind].from_pretrained(folder)


@pytest.mark.parametrize("kind", ["transformer"], indirect=True)
@torch.no_grad()
def test_transformer_reproduces_the_published_output(shared: Path, folder: Path) -> None:
    golden = load_file(shared / "golden" / "transformer_io.safetensors")
    seconds = epoch_seconds(golden["init_time_yyyymmddhh"])
    output = LatentTransformer.from_pretrained(folder)(
        golden["noisy"], golden["c_noise"], golden["conditioning"], seconds
    )
    assert relative_error(output, golden["output"]) < 1e-5


@pytest.mark.parametrize("kind", ["autoencoder"], indirect=True)
@torch.no_grad()
def test_autoencoder_reproduces_the_published_output(shared: Path, folder: Path) -> None:
    golden, model = load_file(shared / "golden" / "autoencoder_io.safetensors"), Autoencoder.from_pretrained(folder)
    assert relative_error(model.encode(golden["fields"], golden["static"]), golden["latent"]) < 1e-5
    assert relative_error(model.decode(golden["latent"]), golden["reconstruction"]) < 1e-5


@pytest.mark.parametrize("kind", ["transformer"], indirect=True)
@torch.no_grad()
def test_heun_sample_is_the_published_one(shared: Path, folder: Path) -> None:
    golden, model = (
        load_file(shared / "golden" / "transformer_io.safetensors"),
        LatentTransformer.from_pretrained(folder),
    )
    past, seconds = golden["conditioning"][:1], epoch_seconds(golden["init_time_yyyymmddhh"][:1])

    def slope(state: Tensor, sigma: Tensor) -> Tensor:
        """Returns dx/dsigma = (x - D(x)) / sigma with D preconditioned as in arXiv 2206.00364, table 1."""
        total = sigma**2 + SIGMA_DATA**2
        raw = model((state / total.sqrt()).float(), (sigma.log() / 4).float().reshape(1), past, seconds)
        denoised = SIGMA_DATA**2 / total * state + sigma * SIGMA_DATA / total.sqrt() * raw.double()
        return (state - denoised) / sigma

    sigmas = golden["sampler_sigmas"].double()
    state = golden["sampler_noise"].double() * sigmas[0]
    for sigma, following in pairwise(sigmas):
        first = slope(state, sigma)
        euler = state + (following - sigma) * first
        second = slope(euler, following) if following > 0 else first
        state = state + (following - sigma) * (first + second) / 2
    assert relative_error(state, golden["sampler_output"].double()) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ladcast_375M", "ladcast_1.6B", "dcae_84"])
def test_every_published_key_and_shape_maps_both_ways(shared: Path, name: str) -> None:
    published = json.loads((shared / "golden" / "published_shapes.json").read_text())[name]
    kind = Autoencoder if name.startswith("dcae") else LatentTransformer
    network, layout = kind.sketch(published["config"]), kind.public_layout
    assert json.loads(json.dumps(layout.public(network.config))) == published["config"]
    state = {key: torch.empty(shape, device="meta") for key, shape in published["state_dict"].items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    ours = layout.from_public(state, shapes, network.config)
    assert sum(tensor.numel() for tensor in ours.values()) == published["parameters"]
    back = {key: list(tensor.shape) for key, tensor in layout.to_public(ours, network.config).items()}
    assert back == published["state_dict"]


def test_import_and_export_are_bit_identical(folder: Path, kind: str, tmp_path: Path) -> None:
    load(kind, folder).save_pretrained(tmp_path / "copy")
    before, after = (load_file(place / WEIGHTS_FILE) for place in (folder, tmp_path / "copy"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    configs = [json.loads((place / CONFIG_FILE).read_text()) for place in (folder, tmp_path / "copy")]
    assert configs[0] == configs[1]


def split_into_shards(folder: Path) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    shard_of = {key: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, key in enumerate(state)}
    for shard in set(shard_of.values()):
        save_file({key: state[key] for key in state if shard_of[key] == shard}, folder / shard)
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": shard_of}))
    (folder / WEIGHTS_FILE).unlink()


def test_shards_load_like_one_file(folder: Path, kind: str) -> None:
    whole = load(kind, folder).state_dict()
    split_into_shards(folder)
    sharded = load(kind, folder).state_dict()
    assert all(torch.equal(whole[key], sharded[key]) for key in whole)


def test_a_missing_shard_is_named(folder: Path, kind: str) -> None:
    split_into_shards(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        load(kind, folder)


def test_damaged_files_are_named(folder: Path, kind: str) -> None:
    weights = (folder / WEIGHTS_FILE).read_bytes()
    for damaged in (weights[:-1000], b"\x80\x04 pickle", b""):
        (folder / WEIGHTS_FILE).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{WEIGHTS_FILE} is damaged"):
            load(kind, folder)


def test_a_pickle_is_never_loaded(folder: Path, kind: str) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "diffusion_pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model\.bin.*convert them to safetensors"):
        load(kind, folder)


def test_weights_that_do_not_fit_are_named(folder: Path, kind: str) -> None:
    state = load_file(folder / WEIGHTS_FILE)
    key = sorted(state)[0]
    missing = {name: tensor for name, tensor in state.items() if name != key}
    reshaped = state | {key: state[key].new_zeros(7)}
    for broken, message in (
        (missing, rf"1 keys are missing \(first \['{key}'\]\)"),
        (state | {"stray.weight": torch.zeros(1)}, r"1 are unknown \(first \['stray.weight'\]\)"),
        (reshaped, rf"{key}: expected .* got \(7,\)"),
    ):
        save_file(broken, folder / WEIGHTS_FILE)
        with pytest.raises(ValueError, match=message):
            load(kind, folder)


def test_unknown_settings_are_named(folder: Path, kind: str) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | {"_class_name": "Any", "dropout": 0.1}))
    with pytest.raises(ValueError, match=r"'dropout' to be absent, got 0\.1"):
        load(kind, folder)
    (folder / CONFIG_FILE).write_text(json.dumps({"in_channels": 3}))
    with pytest.raises(ValueError, match=r"config\.json lacks"):
        load(kind, folder)
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=CONFIG_FILE):
        load(kind, folder)
