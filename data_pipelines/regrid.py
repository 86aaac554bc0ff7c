"""Stage `regrid`: a store on another grid, averaged conservatively over its cells."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.options import EVERYTHING, EXECUTION, LAYOUT, ExecutionArgument, LayoutArgument, SelectionArgument
from data_pipelines.product import produce
from data_pipelines.transfer import Transfer
from data_pipelines.view import View
from ladcast.grid import Grid


def regrid(
    store: Path,
    output: Path,
    *,
    onto: str,
    selection: SelectionArgument = EVERYTHING,
    layout: LayoutArgument = LAYOUT,
    execution: ExecutionArgument = EXECUTION,
) -> Path:
    """Regrid a store conservatively, such as ERA5 from 0.25 to 1.5 degrees.

    Args:
        store: Zarr store in the WeatherBench 2 layout.
        output: Zarr store to write, in canonical layout.
        onto: target grid such as 240x121, or 240x121-south without the row of the south pole.
        selection: what to read.
        layout: how to write it.
        execution: where to do the work.
    """
    return produce(Transfer("regrid", View.of(store, selection), Grid.parse(onto), layout), output, execution)
