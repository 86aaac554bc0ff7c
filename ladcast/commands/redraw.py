"""`ladcast redraw`: members of a past forecast, made again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from ladcast.commands.options import Results, report_paths
from ladcast.files import require_outputs


def redraw(
    record: Path,
    output: Path,
    *,
    members: tuple[int, ...],
    time: Annotated[tuple[str, ...], Parameter(name=("--time", "--times"))] = (),
    source: Path | None = None,
    model: str | None = None,
    keep: Literal["fields", "latents"] | None = None,
    device: str = "cpu",
    overwrite: bool = False,
) -> Results | None:
    """Make members of a past forecast again, bit for bit on a CPU, from what a store or a track file says of it.

    Args:
        record: forecast (fields or latents), what `ladcast export` or `products` wrote of it, or its tracks (.nc).
        output: Zarr store to write; a killed run goes on.
        members: numbers of the members; one beyond the forecast's is the member that a larger ensemble would have had.
        time: initial times, where there are several; by default all.
        source: the states that the forecast started from, where they are no longer where they were.
        model: name or folder of the model that made it, where it is not found by itself.
        keep: write fields or latents; by default what the record is.
        device: cpu, as the forecast was; cuda gives members that differ in their last bits, and grow apart.
        overwrite: replace an existing output.
    """
    if output.suffix != ".zarr":
        raise ValueError(f"Expected an output that ends in .zarr, got '{output.name}'. Rename it.")
    require_outputs([output], [record, source], overwrite=overwrite)

    from ladcast.forecasts.redraw import redraw as make_again

    given: dict[str, Any] = {
        "times": time,
        "source": source,
        "model": model,
        "keep": keep,
        "device": device,
        "overwrite": overwrite,
    }
    made = make_again(record, output, members, **given)
    return None if made is None else report_paths(members=made)  # the first process of a job tells
