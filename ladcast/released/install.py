"""`ladcast weights`: installs released weights as a model that needs nothing else, checks and lists models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladcast.checkpoint import MANIFEST, further_steppers, read_document, verify_checkpoint
from ladcast.data.normalization import Normalizer, read_static
from ladcast.diffusion import Denoiser
from ladcast.fields import read_channels
from ladcast.files import sha256
from ladcast.forecasting.checkpoints import save_forecaster
from ladcast.forecasting.codec import LatentCodec, LatentScale
from ladcast.forecasting.diffusion import DiffusionConfig, DiffusionStepper
from ladcast.forecasting.forecaster import Forecaster
from ladcast.grid import Grid
from ladcast.models.autoencoder import Autoencoder
from ladcast.models.pretrained import CONFIG_FILE, Repository, fetch_config, fetch_folder, list_repository, read_json
from ladcast.models.transformer import LatentTransformer
from ladcast.released import (
    Assets,
    Location,
    Release,
    find_model,
    find_release,
    list_models,
    models_home,
    read_registry,
)

KINDS: dict[str, type[Autoencoder | LatentTransformer]] = {"transformer": LatentTransformer, "autoencoder": Autoencoder}


def fetch_weights(
    name: str, location: Location, assets: Assets, *, endpoint: str | None = None, overwrite: bool = False
) -> Path:
    """Fetches both networks of a released model from the hub and installs them; returns the model's folder.

    Raises:
        ConnectionError: the hub cannot be reached.
        ValueError: repository, revision or folder is not there, or a file is damaged.
        FileExistsError: there is a model of this name, and not `overwrite`.
    """
    _require_free(name, overwrite=overwrite)
    release = find_release(name, location)
    if release.repository is None:
        raise ValueError(f"Unknown model '{name}'. Take one of {', '.join(read_registry())}, or name a --repository.")
    repository = list_repository(release.repository, release.revision or "main", endpoint=endpoint)
    folders = {kind: getattr(release, kind) or _search(repository, kind, release, endpoint) for kind in KINDS}
    transformer, autoencoder = (fetch_folder(repository, folder, endpoint=endpoint) for folder in folders.values())
    origin = {"repository": repository.name, "commit": repository.commit, "folders": folders}
    return import_weights(name, transformer, autoencoder, assets, origin=origin, overwrite=overwrite)


def import_weights(
    name: str,
    transformer: Path,
    autoencoder: Path,
    assets: Assets,
    *,
    origin: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Installs two folders in the public layout as a model with all it needs; returns the model's folder.

    No number of the weights is changed. Nothing is installed unless everything fits together.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or the networks, statistics and static fields do not fit each other.
        FileExistsError: there is a model of this name, and not `overwrite`.
    """
    _require_free(name, overwrite=overwrite)
    folders = {"transformer": transformer, "autoencoder": autoencoder}
    for kind, folder in folders.items():
        _check_size(name, kind, folder)
    forecaster = build_forecaster(name, transformer, autoencoder, assets)
    manifest = {
        "licence": find_release(name).licence,
        "origin": dict(origin or {kind: str(folder.absolute()) for kind, folder in folders.items()}),
        "imported": {
            kind: {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
            for kind, folder in folders.items()
        },
        "assets": {role: path.name for role, path in vars(assets).items() if isinstance(path, Path)},
    }
    save_forecaster(forecaster, models_home() / name, manifest, dtype=None)
    return models_home() / name


def _require_free(name: str, *, overwrite: bool) -> None:
    if "/" in name or name.startswith("."):
        raise ValueError(f"Expected the name of a model, such as ladcast-375m, got '{name}'.")
    if (models_home() / name).exists() and not overwrite:
        raise FileExistsError(f"{models_home() / name} exists already. Choose another name, or add --overwrite.")


def build_forecaster(name: str, transformer: Path, autoencoder: Path, assets: Assets) -> Forecaster:
    """Joins two folders in the public layout and their assets to a forecaster; raises as `import_weights` does."""
    decoder, network = Autoencoder.from_pretrained(autoencoder), LatentTransformer.from_pretrained(transformer)
    channels, grid = read_channels(assets.channels), Grid.parse(assets.grid)
    static = read_static(assets.static, assets.static_fields, grid)
    expected = {
        "channels": (decoder.config.channels, len(channels)),
        "static fields": (decoder.config.static_channels, len(static)),
        "latent channels of the transformer": (decoder.config.latent_channels, network.config.latent_channels),
    }
    scale = _read_latent_scale(assets.latent_statistics, decoder.config.latent_channels)
    for what, (needed, given) in expected.items():
        if needed != given:
            raise ValueError(f"{name}: the autoencoder in {autoencoder} expects {needed} {what}, got {given}.")
    codec = LatentCodec(decoder, Normalizer.load(assets.statistics, channels), grid, static=static, latent_scale=scale)
    stepper = DiffusionStepper(DiffusionConfig(network.config), Denoiser(network))
    return Forecaster(codec, stepper, name)


def verify_weights(name_or_path: str) -> str:
    """Checks the SHA-256 of every file of a model, or that a folder in the public layout is whole; says what it is.

    Raises:
        FileNotFoundError: there is no such model or file.
        ValueError: a file is damaged or does not fit the others.
    """
    path = find_model(name_or_path).path
    if (path / CONFIG_FILE).is_file():
        kind, parameters = describe_config(path / CONFIG_FILE)
        KINDS[kind].from_pretrained(path)
        return f"{path}: whole {kind}, {parameters:,} parameters, every key and shape fits"
    for each in (path, *further_steppers(path)):
        verify_checkpoint(each)
    origin = read_document(path, MANIFEST).get("origin", "trained here")
    return f"{path}: every file has its SHA-256; origin {json.dumps(origin)}"


def show_weights(repository: str | None = None, revision: str | None = None, *, endpoint: str | None = None) -> str:
    """Lists the released and installed models, or the networks that a repository of the hub holds."""
    if repository is not None:
        return _describe_repository(list_repository(repository, revision, endpoint=endpoint), endpoint)
    at_hand = {model.path.name: model.path for model in list_models()}
    lines = [f"{name:16}{path}" for name, path in at_hand.items()]
    for name, known in read_registry().items():
        if name not in at_hand:
            where = f"{known['repository']} at {known['revision']}"
            lines.append(
                f"{name:16}not installed: `ladcast weights fetch {name}` ({where}), or `ladcast weights import`"
            )
    return "\n".join(lines)


def describe_config(path: Path) -> tuple[str, int]:
    """Returns which kind of network a config.json describes, and how many parameters it has; ValueError for none."""
    content = read_json(path)
    fitting = [kind for kind, net in KINDS.items() if net.is_own(content) or net.public_layout.describes(content)]
    kind = fitting[0] if fitting else "transformer"  # which names what it lacks
    return kind, sum(tensor.numel() for tensor in KINDS[kind].sketch(content).state_dict().values())


def _describe_repository(repository: Repository, endpoint: str | None) -> str:
    lines = [f"{repository.name} at {repository.commit}"]
    for folder in repository.folders:
        size = sum(file.size for file in repository.network_files(folder)) / 1e9
        kind, parameters = describe_config(fetch_config(repository, folder, endpoint=endpoint))
        lines.append(f"{folder:40}{kind:12} {parameters:>13,} parameters {size:7.2f} GB")
    return "\n".join(lines)


def _search(repository: Repository, kind: str, release: Release, endpoint: str | None) -> str:
    """Returns the one folder whose network has as many parameters; ValueError where there is none, or several."""
    parameters = getattr(release, f"{kind}_parameters")
    sizes = {
        folder: describe_config(fetch_config(repository, folder, endpoint=endpoint)) for folder in repository.folders
    }
    fitting = [folder for folder, size in sizes.items() if size == (kind, parameters)]
    if len(fitting) != 1:
        raise ValueError(
            f"{repository.name} at {repository.commit[:12]}: expected one {kind} of {parameters} parameters, got "
            f"{fitting or 'none'} among {sizes}. Name its folder with --{kind}."
        )
    return fitting[0]


def _check_size(name: str, kind: str, folder: Path) -> None:
    expected = getattr(find_release(name), f"{kind}_parameters")
    found = describe_config(folder / CONFIG_FILE)
    if found[0] != kind or expected not in (None, found[1]):
        raise ValueError(
            f"{folder}: expected the {kind} of {name}"
            f"{f' with {expected:,} parameters' if expected else ''}, got {found[0]} with {found[1]:,}. "
            "Give another folder, or another name to a model of your own."
        )


def _read_latent_scale(path: Path, latent_channels: int) -> LatentScale:
    scale = LatentScale.from_dict(read_json(path))
    for label, values in (("mean", scale.mean), ("std", scale.std)):
        if len(values) != latent_channels:
            raise ValueError(
                f"{path}: expected {latent_channels} values of {label}, one a latent channel, got {len(values)}. "
                "Give the file of this autoencoder with --latent-statistics."
            )
    return scale
