"""Stage `download`: states of an archive or of local files, into a store in canonical layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data_pipelines.archive import Archive
from data_pipelines.options import (
    EVERYTHING,
    EXECUTION,
    LAYOUT,
    ORIGIN,
    ExecutionArgument,
    LayoutArgument,
    Origin,
    OriginArgument,
    Selection,
    SelectionArgument,
)
from data_pipelines.patience import DISK, NETWORK
from data_pipelines.product import produce
from data_pipelines.transfer import Frames, Transfer
from data_pipelines.view import View
from ladcast.data.sources.registry import SOURCES
from ladcast.grid import Grid


def download(
    source: str,
    output: Path,
    *,
    onto: str | None = None,
    origin: OriginArgument = ORIGIN,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Copy states of an archive or of a local store or file into a store in canonical layout.

    A frame that the source lacks stops the stage with a list; those in `omit` are left out and declared as gaps.

    Args:
        source: name of an archive such as weatherbench2, or the path of a local store or file.
        output: Zarr store to write.
        onto: regrid to this grid on the way, such as 240x121: moves the coarse fields only.
        origin: how to take them from the source.
        selection: what to read.
        layout: how to write it.
        execution: where to do the work.
    """
    frames = frames_of(source, selection, origin)
    patience = NETWORK if isinstance(frames, Archive) else DISK
    return produce(
        Transfer("download", frames, Grid.parse(onto) if onto else None, layout, patience), output, execution
    )


def frames_of(source: str, selection: Selection, origin: Origin) -> Frames:
    """Returns the frames of a path, where there is something, else of the archive of that name.

    Raises:
        FileNotFoundError: it is neither.
        ValueError: the selection or the origin does not suit it.
    """
    if not Path(source).exists():
        if source not in SOURCES:
            raise FileNotFoundError(f"{source} is neither a file nor an archive. Archives: {', '.join(SOURCES)}.")
        return Archive.of(source, selection, origin)
    if origin.setting:
        raise ValueError(f"{source} is a local file, which has no settings; got {', '.join(origin.setting)}.")
    return replace(View.of(Path(source), selection), omit=origin.omit, accept_gaps=origin.accept_gaps)
