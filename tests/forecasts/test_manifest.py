import json
from pathlib import Path

import pytest

from ladcast.forecasts.manifest import KEY, LatentManifest, is_latent_store


def test_a_manifest_names_the_model_and_describes_its_states(kept):
    manifest = LatentManifest.read(kept.latents)
    assert f"{manifest.name}@{manifest.weights}" == kept.forecaster.name
    assert manifest.folder == str(kept.model)
    assert manifest.channels == kept.forecaster.channels.to_dict()
    assert LatentManifest(**manifest.to_attributes()[KEY]) == manifest
    assert manifest.folders(kept.latents)[0] == str(kept.model)
    attributes = json.loads((kept.latents / "zarr.json").read_text())
    del attributes["attributes"][KEY]["beside"]  # as earlier versions wrote it
    (kept.latents / "zarr.json").write_text(json.dumps(attributes))
    assert LatentManifest.read(kept.latents).folders(kept.latents) == [str(kept.model)]


def test_what_is_no_latent_store_is_told(kept, tmp_path: Path):
    assert is_latent_store(kept.latents)
    assert not is_latent_store(kept.fields)
    assert not is_latent_store(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no latent store"):
        LatentManifest.read(kept.fields)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        LatentManifest.read(tmp_path / "nowhere")
    (tmp_path / "fc2.zarr.partial").mkdir()
    with pytest.raises(FileNotFoundError, match="unfinished"):
        LatentManifest.read(tmp_path / "fc2.zarr")


def test_damaged_metadata_is_told(kept):
    metadata = kept.latents / "zarr.json"
    text = metadata.read_text()
    metadata.write_text(text.replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match="version 2"):
        LatentManifest.read(kept.latents)
    metadata.write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="damaged"):
        LatentManifest.read(kept.latents)
