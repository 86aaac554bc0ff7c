"""Files that an archive delivers on request: their names, and how they come to be whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Delivery:
    """Holds a request and the name of the file that answers it."""

    file: str
    request: Mapping[str, Any]


Download = Callable[[Delivery, Path], None]
"""Writes the answer to a request to a file."""


@contextmanager
def atomically(path: Path, what: str) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` when nothing failed.

    Raises:
        ConnectionError: the download failed; it says what was asked for, and what to do.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
    except ImportError:
        raise
    except Exception as error:  # each client raises its own kinds
        partial.unlink(missing_ok=True)
        raise ConnectionError(
            f"Expected to download {what} over the network, got {type(error).__name__}: {error}. Run it again: what "
            f"has arrived stays. Offline, put the file at {path}."
        ) from error
    partial.replace(path)


def fetch_missing(
    folder: Path, deliveries: Sequence[Delivery], source: str, connect: Callable[[], Download]
) -> list[Path]:
    """Downloads the files that are not in `folder` yet, each under its name only when it is whole.

    Connects only where something is missing. Raises ConnectionError as `atomically` does.
    """
    missing = [delivery for delivery in deliveries if not (folder / delivery.file).is_file()]
    if missing:
        download = connect()
        for delivery in missing:
            with atomically(folder / delivery.file, f"{delivery.file} from {source}") as partial:
                download(delivery, partial)
    return [folder / delivery.file for delivery in deliveries]


def check_delivered(folder: Path, deliveries: Sequence[Delivery], source: str) -> list[Path]:
    """Returns the files of `deliveries`; raises FileNotFoundError that lists those that are not in `folder`."""
    missing = [delivery.file for delivery in deliveries if not (folder / delivery.file).is_file()]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        raise FileNotFoundError(
            f"{folder} lacks {len(missing)} of {len(deliveries)} files from {source}: {shown}. Download them with "
            "`fetch` (it needs the network), or copy them there under these names."
        )
    return [folder / delivery.file for delivery in deliveries]
