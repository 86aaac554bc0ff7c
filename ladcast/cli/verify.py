"""Commands that score forecasts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from ladcast.cli.common import Results, Several
from ladcast.commands.score_options import EvaluationRequest, ScoreRequest, Scoring
from ladcast.released.registry import DEFAULT_MODEL, find_model

DEFAULT_SCORING = Scoring()


def score(
    *forecasts: Path,
    request: Annotated[ScoreRequest, Parameter(name="*")],
    scoring: Annotated[Scoring, Parameter(name="*")] = DEFAULT_SCORING,
) -> Results:
    """Score forecasts against the truth, beside persistence, climatology and other systems on the same dates.

    Args:
        forecasts: forecast stores of one system, each with other starts.
        request: what to compare with.
        scoring: what to compute, where, and which share of it.
    """
    from ladcast.commands.score import provenance, score_forecasts
    from ladcast.commands.score_report import compared, report
    from ladcast.verification.sums import keep_sums

    if not forecasts:
        raise ValueError("There is nothing to score: name at least one forecast store.")
    systems, notes = score_forecasts(forecasts, request, scoring)
    if notes:
        print("\n".join(notes))
    if scoring.sums is not None:
        label = f"{request.name}-{(scoring.part or '1/1').replace('/', '-of-')}"
        print(f"sums {keep_sums(systems, scoring.sums, label)}")
    if scoring.part is not None:
        return {}
    output = request.output or forecasts[0].with_suffix(".scores.nc")
    about = provenance(forecasts, request) | compared(notes)
    channels, days = scoring.channels, scoring.block_days
    return report(systems, output, request.scorecard, block_days=days, about=about, channels=channels)


def evaluate(
    store: Path,
    *,
    request: Annotated[EvaluationRequest, Parameter(name="*")],
    scoring: Annotated[Scoring, Parameter(name="*")] = DEFAULT_SCORING,
    model: str = DEFAULT_MODEL,
) -> Results:
    """Make forecasts from many starts and score them at once; no fields are stored, and a stopped run goes on.

    Args:
        store: states to start from, which are also the truth.
        request: which forecasts to make.
        scoring: what to compute, where, and which share of it.
        model: name of an embedded model, or a checkpoint folder.
    """
    from ladcast.commands.evaluate import evaluate as make_and_score
    from ladcast.commands.evaluate import provenance
    from ladcast.commands.score_report import report

    folder = find_model(model)
    systems = make_and_score(store, folder, request, scoring)
    if scoring.part is not None:
        print(f"sums {scoring.sums}")
        return {}
    about = {"model": model, **provenance(store, folder, request), "members": str(request.members)}
    about["seed"] = str(request.seed)
    channels, days = scoring.channels, scoring.block_days
    return report(systems, request.output, request.scorecard, block_days=days, about=about, channels=channels)


def merge(
    sums: Path,
    *,
    first: str | None = None,
    output: Path = Path("scores.nc"),
    scorecard: Path | None = None,
    block_days: float = 10.0,
    channels: Annotated[tuple[str, ...], Several] = (),
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
    from ladcast.commands.score_options import require_channel_names
    from ladcast.commands.score_report import compared, report
    from ladcast.verification.sums import merge_sums, read_claims

    require_channel_names(channels)
    systems, notes = merge_sums(sums, first)
    if notes:
        print("\n".join(notes))
    about = {"sums": str(sums), **read_claims(sums)[1], **compared(notes)}
    return report(systems, output, scorecard, block_days=block_days, about=about, channels=channels)
