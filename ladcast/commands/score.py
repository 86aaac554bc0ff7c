"""`ladcast score` and `ladcast merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.common import FLAT, Results
from ladcast.commands.options import ScoreRequest, Scoring

DEFAULT_SCORING = Scoring()


def score(
    *forecasts: Path,
    request: Annotated[ScoreRequest, FLAT],
    scoring: Annotated[Scoring, FLAT] = DEFAULT_SCORING,
) -> Results:
    """Score forecasts against the truth, beside persistence, climatology and other systems on the same dates.

    Args:
        forecasts: forecast stores of one system, each with other starts.
        request: what to compare with.
        scoring: what to compute, where, and which share of it.
    """
    from ladcast.commands.scoring import score_forecasts

    if not forecasts:
        raise ValueError("There is nothing to score: name at least one forecast store.")
    _, results = score_forecasts(forecasts, request, scoring)
    return results


def merge(
    sums: Path,
    *,
    first: str | None = None,
    output: Path = Path("scores.nc"),
    scorecard: Path | None = None,
    block_days: float = 10.0,
    channels: tuple[str, ...] = (),
) -> Results:
    """Merge the sums that several processes wrote to one folder: to the bit what one process would have found.

    Args:
        sums: folder that `ladcast score --sums` or `ladcast evaluate --sums` wrote.
        first: system that the others are compared with.
        output: netCDF file for all scores.
        scorecard: .png, .pdf or .svg file for a scorecard; curves by lead time are drawn beside it.
        block_days: length of the blocks of the bootstrap.
        channels: what the table and the figures show, such as z500 t2m wind10, or all; by default the headline
            channels. The file of scores holds all.
    """
    from ladcast.commands.scoring import report
    from ladcast.verification.archive import merge_sums, read_claims

    shown = Scoring(block_days=block_days, channels=channels)
    scores, notes = merge_sums(sums, first)
    if notes:
        print("\n".join(notes))
    about = {"sums": str(sums), **read_claims(sums)[1]}
    return report(scores, output, scorecard, shown, about, notes=notes)
