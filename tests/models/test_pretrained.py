"""A network saved is the network loaded, in whichever layout can express it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.hub import CONFIG_FILE
from ladcast.models.pretrained import CLASS_NAME, WEIGHTS_FILE, Pretrained
from ladcast.models.transformer import LatentTransformer, TransformerConfig


def transformer(**behaviour: object) -> LatentTransformer:
    sizes = {"heads": 2, "head_dim": 16, "dual_blocks": 1, "single_blocks": 1, "rope_axes_dim": (4, 6, 6)}
    return LatentTransformer(TransformerConfig(4, (-70.0, 70.0), (20.0, 340.0), **sizes, **behaviour))


def autoencoder(**behaviour: object) -> Autoencoder:
    stages = {"widths": (8, 8), "blocks": (1, 1), "kinds": ("residual", "residual"), "kernels": ((), ())}
    return Autoencoder(AutoencoderConfig(3, 1, 4, **stages, **behaviour))


NETWORKS = {
    "new transformer": transformer,
    "released transformer": lambda: transformer(**LatentTransformer.public_layout.behaviour),
    "new autoencoder": lambda: autoencoder(pole_rows=(False, True)),
    "released autoencoder": lambda: autoencoder(**Autoencoder.public_layout.behaviour),
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> Pretrained:
    return NETWORKS[request.param]()


def test_what_is_saved_is_loaded(network: Pretrained, tmp_path: Path):
    network.save_pretrained(tmp_path / "network")
    loaded = type(network).from_pretrained(tmp_path / "network")
    assert loaded.config == network.config
    expected = network.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_released_behaviour_is_written_in_the_public_layout(name: str, tmp_path: Path):
    NETWORKS[name]().save_pretrained(tmp_path)
    assert (CLASS_NAME in json.loads((tmp_path / CONFIG_FILE).read_text())) == name.startswith("new")


def test_saving_again_replaces_the_whole_folder(network: Pretrained, tmp_path: Path):
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "stray").write_text("")
    network.save_pretrained(tmp_path / "network")
    assert {path.name for path in (tmp_path / "network").iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    assert [path.name for path in tmp_path.iterdir()] == ["network"]


def test_weights_of_another_size_are_refused(tmp_path: Path):
    transformer().save_pretrained(tmp_path / "network")
    weights = tmp_path / "network" / WEIGHTS_FILE
    save_file({name: tensor[:1].contiguous() for name, tensor in load_file(weights).items()}, weights)
    with pytest.raises(ValueError, match=r"do not fit its config\.json"):
        LatentTransformer.from_pretrained(tmp_path / "network")


def test_another_kind_is_refused(tmp_path: Path):
    transformer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not describe this kind of network"):
        Autoencoder.from_pretrained(tmp_path)
