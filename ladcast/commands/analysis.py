"""`ladcast analysis`."""

from __future__ import annotations

from pathlib import Path

from ladcast.commands.common import Results, report_paths
from ladcast.released.registry import DEFAULT_MODEL, find_model


def analysis(
    time: str,
    *,
    source: tuple[str, ...],
    output: Path | None = None,
    model: str = DEFAULT_MODEL,
    downloads: Path = Path("downloads"),
) -> Results:
    """Put a start state together from several sources; without an output, only say where each channel comes from.

    Args:
        time: initial time in UTC such as 2011-10-11T00.
        source: names of sources (weatherbench2, arco-era5, cds, gfs, ecmwf-open-data) or paths, the preferred first.
        output: Zarr store to write; what must be downloaded needs the network.
        model: name or folder of the model whose channels and grid are wanted.
        downloads: folder of downloaded files, which are kept.
    """
    from ladcast.data.sources.initial_state import fetch_start, plan_start
    from ladcast.forecasting.checkpoints import read_description

    _, channels, grid = read_description(find_model(model).path)
    plan, sources = plan_start(time, source, channels, downloads)
    print(plan)
    return {} if output is None else report_paths(analysis=fetch_start(plan, sources, output, grid))
