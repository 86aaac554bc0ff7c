"""Sources that answer requests with files: the names of the files, and how they come to be whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ladcast.data.sources.base import Source
from ladcast.fields import ChannelSet
from ladcast.files import whole_file
from ladcast.times import Times


@dataclass(frozen=True)
class Delivery:
    """A request, and the name of the file that answers it."""

    file: str
    request: Mapping[str, Any]


Download = Callable[[Delivery, Path], None]
"""Writes the answer to a request to a file."""


@runtime_checkable
class DeliveringSource(Source, Protocol):
    """A source whose states are files in a folder: downloaded by `fetch`, or brought there under the same names."""

    @property
    def folder(self) -> Path:
        """Returns where the files lie."""

    @property
    def origin(self) -> str:
        """Returns the archive as messages name it."""
        return self.name

    def deliveries(self, times: Times, channels: ChannelSet) -> tuple[Delivery, ...]:
        """Returns the requests, each with the file that answers it."""

    def connect(self) -> Download:
        """Returns what downloads one file; raises ImportError where the client of the archive is missing."""

    def fetch(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Downloads the files that are not in `folder` yet, each under its name only when it is whole.

        Connects only where something is missing.

        Raises:
            ConnectionError: a download failed; the message says what was asked for, and what to do.
        """
        deliveries = self.deliveries(times, channels)
        missing = [delivery for delivery in deliveries if not (self.folder / delivery.file).is_file()]
        if missing:
            download = self.connect()
            for delivery in missing:
                self._download(delivery, download)
        return [self.folder / delivery.file for delivery in deliveries]

    def delivered(self, times: Times, channels: ChannelSet) -> list[Path]:
        """Returns the files in `folder`; raises FileNotFoundError that lists those that are not there."""
        deliveries = self.deliveries(times, channels)
        missing = [delivery.file for delivery in deliveries if not (self.folder / delivery.file).is_file()]
        if missing:
            shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
            raise FileNotFoundError(
                f"{self.folder} lacks {len(missing)} of {len(deliveries)} files from {self.name}: {shown}. Download "
                "them with `fetch` (it needs the network), or copy them there under these names."
            )
        return [self.folder / delivery.file for delivery in deliveries]

    def _download(self, delivery: Delivery, download: Download) -> None:
        path = self.folder / delivery.file
        try:
            with whole_file(path) as partial:
                download(delivery, partial)
        except ImportError:
            raise
        except Exception as error:  # each client raises its own kinds
            raise ConnectionError(
                f"Expected to download {delivery.file} from {self.origin} over the network, got "
                f"{type(error).__name__}: {error}. Run it again: what has arrived stays. Offline, put the file at "
                f"{path}."
            ) from error
