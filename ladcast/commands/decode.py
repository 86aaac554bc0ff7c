"""`ladcast decode`: a forecast that was kept as latents, or a part of it, as fields."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ladcast.commands.export import export
from ladcast.forecasts.manifest import LatentManifest
from ladcast.forecasts.options import ExportFormat
from ladcast.forecasts.selection import Selection


def decode(
    source: Path,
    output: Path,
    selection: Selection,
    *,
    times: Sequence[str] = (),
    form: ExportFormat | None = None,
    **decoding: Any,
) -> Path:
    """Decodes a part of a latent store frame by frame: `export` of what is a latent store; raises as that does."""
    LatentManifest.read(source)
    return export(source, output, selection, form or ExportFormat(), times=times, **decoding)
