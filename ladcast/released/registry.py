"""What belongs to released weights; imported by the command line, so it imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).parents[1] / "published"


@dataclass(frozen=True)
class Assets:
    """Names what released networks need beside their weights; the defaults are those of LaDCast (arXiv 2506.09193).

    Attributes:
        channels: channels of the states, `era5` or a YAML file of another set.
        grid: grid of the states, such as 240x121-south.
        statistics: JSON file with the mean and standard deviation of each channel.
        latent_statistics: JSON file with the mean and standard deviation of each latent channel.
        static: netCDF file with the static fields.
        static_fields: names of the static fields, in the order of the encoder's channels.
    """

    channels: str = "era5"
    grid: str = "240x121-south"
    statistics: Path = PUBLISHED / "era5_1979_2017.json"
    latent_statistics: Path = PUBLISHED / "latent84_1979_2017.json"
    static: Path = PUBLISHED / "static_240x121.nc"
    static_fields: tuple[str, ...] = (
        "land_sea_mask",
        "standard_deviation_of_orography",
        "angle_of_sub_gridscale_orography",
        "anisotropy_of_sub_gridscale_orography",
        "slope_of_sub_gridscale_orography",
    )


@dataclass(frozen=True)
class Location:
    """Says where on the hub the weights lie; what is left out is taken from the registry of released models.

    Attributes:
        repository: repository owner/name of the hub.
        revision: branch, tag or commit; the manifest of an installed model names the commit it is of.
        transformer: folder of the transformer in the repository; by default the one of the right size.
        autoencoder: folder of the autoencoder in the repository.
    """

    repository: str | None = None
    revision: str | None = None
    transformer: str | None = None
    autoencoder: str | None = None


@dataclass(frozen=True)
class Release:
    """Describes a released model: where its weights lie, how many parameters its networks have, and its licence."""

    repository: str
    revision: str = "main"
    transformer: str | None = None
    autoencoder: str | None = None
    transformer_parameters: int | None = None
    autoencoder_parameters: int | None = None
    licence: str = "not known here; see the repository"


DEFAULT_ASSETS = Assets()
DEFAULT_LOCATION = Location()


def read_registry() -> dict[str, dict[str, Any]]:
    """Reads what is known of each released model: fields of `Release`."""
    import yaml

    entries: dict[str, dict[str, Any]] = yaml.safe_load((PUBLISHED / "registry.yaml").read_text())
    return entries


def find_release(name: str, location: Location = DEFAULT_LOCATION) -> Release | None:
    """Returns what is known of a model, where `location` wins; None where not even the repository is known."""
    given = {key: value for key, value in asdict(location).items() if value is not None}
    known = {**read_registry().get(name, {}), **given}
    return Release(**known) if "repository" in known else None
