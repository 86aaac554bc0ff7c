"""A network saved is the network loaded, in whichever layout can express it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig
from ladcast.models.pretrained import (
    CLASS_NAME,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Pretrained,
    fetch_config,
    fetch_folder,
    find_folder,
    list_repository,
)
from ladcast.models.transformer import LatentTransformer, TransformerConfig


def test_a_repository_lists_its_networks_at_a_commit(hub):
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    assert repository.commit == hub.commit
    assert repository.folders == ("V9/autoencoder", "V9/transformer")
    names = [file.path for file in repository.network_files("V9/transformer")]
    assert names == [f"V9/transformer/{CONFIG_FILE}", f"V9/transformer/{WEIGHTS_FILE}"]


def test_only_the_files_of_the_network_are_fetched_and_only_once(hub):
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    folder = fetch_folder(repository, "V9/transformer", endpoint=hub.endpoint)
    assert LatentTransformer.from_pretrained(folder).config.heads == 2
    assert sorted(hub.fetched) == [f"V9/transformer/{CONFIG_FILE}", f"V9/transformer/{WEIGHTS_FILE}"]
    fetch_folder(repository, "V9/transformer", endpoint=hub.endpoint)
    assert len(hub.fetched) == 2


def test_a_configuration_is_fetched_without_the_weights(hub):
    repository = list_repository(hub.name, endpoint=hub.endpoint, revision="main")
    assert json.loads(fetch_config(repository, "V9/autoencoder", endpoint=hub.endpoint).read_text())["latent_channels"]
    assert hub.fetched == [f"V9/autoencoder/{CONFIG_FILE}"]


def test_a_file_that_differs_from_its_hash_is_named_and_deleted(hub):
    path = f"V9/transformer/{WEIGHTS_FILE}"
    hub.stated[path] = "f" * 64
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    with pytest.raises(ValueError, match=rf"{path}.*expected SHA-256 ffff"):
        fetch_folder(repository, "V9/transformer", endpoint=hub.endpoint)
    del hub.stated[path]
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    assert fetch_folder(repository, "V9/transformer", endpoint=hub.endpoint).is_dir()


def test_what_is_not_there_is_named(hub):
    with pytest.raises(ValueError, match="has no revision 'v7'"):
        list_repository(hub.name, "v7", endpoint=hub.endpoint)
    with pytest.raises(ValueError, match="no repository 'someone/else'"):
        list_repository("someone/else", "main", endpoint=hub.endpoint)
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    with pytest.raises(ValueError, match=r"in 'V1'.*Folders with a network: V9/autoencoder, V9/transformer"):
        fetch_folder(repository, "V1", endpoint=hub.endpoint)
    (hub.root / "V9" / "transformer" / WEIGHTS_FILE).unlink()
    repository = list_repository(hub.name, "main", endpoint=hub.endpoint)
    with pytest.raises(ValueError, match=r"expected config\.json and \*\.safetensors"):
        fetch_folder(repository, "V9/transformer", endpoint=hub.endpoint)


def test_without_a_network_the_message_names_the_other_way():
    with pytest.raises(ConnectionError, match=r"Without a network, copy.*ladcast weights import"):
        list_repository("someone/weather", "main", endpoint="http://127.0.0.1:9")
    with pytest.raises(FileNotFoundError, match="Expected a folder or a repository owner/name"):
        find_folder("nowhere")


def test_from_pretrained_reads_a_local_folder(hub):
    assert LatentTransformer.from_pretrained(hub.root, subfolder="V9/transformer").config.heads == 2
    assert Autoencoder.from_pretrained(hub.root / "V9" / "autoencoder").config.channels == 12
    with pytest.raises(ValueError, match="does not describe this kind of network"):
        Autoencoder.from_pretrained(hub.root / "V9" / "transformer")


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
