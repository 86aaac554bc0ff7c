"""`ladcast score`, `evaluate` and `merge`: what forecasts of fields are worth."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

from ladcast.commands.options import EvaluationRequest, Results, ScoreRequest, Scoring, flat, score_outputs
from ladcast.files import matching, remove, require_forecast, require_outputs
from ladcast.released import DEFAULT_MODEL, find_model

DEFAULT_REQUEST, DEFAULT_SCORING = ScoreRequest(), Scoring()


def score(
    *forecasts: Path,
    request: Annotated[ScoreRequest, flat("What is compared")] = DEFAULT_REQUEST,
    scoring: Annotated[Scoring, flat("How it is scored", 3)] = DEFAULT_SCORING,
) -> Results:
    """Score forecasts against the truth, beside persistence, climatology and other systems on the same dates.

    Args:
        forecasts: forecast stores of one system, each with other starts.
        request: what to compare with.
        scoring: what to compute, where, and which share of it.
    """
    if not forecasts:
        raise ValueError("There is nothing to score: name at least one forecast store.")
    outputs = score_outputs(request.output or forecasts[0].with_suffix(".scores.nc"), request.scorecard, scoring)
    require_outputs(outputs, [*forecasts, *request.inputs], overwrite=request.overwrite)
    for forecast in chain(*map(matching, forecasts)):
        require_forecast(forecast)
    from ladcast.commands.scoring import score_forecasts

    _, results = score_forecasts(forecasts, request, scoring)
    return results


def evaluate(
    store: Path,
    *,
    request: Annotated[EvaluationRequest, flat("The forecasts")],
    scoring: Annotated[Scoring, flat("How it is scored", 3)] = DEFAULT_SCORING,
    model: str = DEFAULT_MODEL,
) -> Results:
    """Make forecasts from many starts and score them at once; no fields are stored, and a stopped run goes on.

    Args:
        store: states to start from, which are also the truth.
        request: which forecasts to make.
        scoring: what to compute, where, and which share of it.
        model: name of an embedded model, or a checkpoint folder.
    """
    folder = find_model(model)
    outputs = score_outputs(request.output, request.scorecard, scoring)
    inputs = [store, request.analyses, request.climatology, folder.climatology, *folder.files]
    require_outputs(outputs, inputs, overwrite=request.overwrite)
    from ladcast.commands.evaluation import describe_maker, evaluation_sources, make_and_score
    from ladcast.commands.scoring import report, unreal_truth
    from ladcast.resumable import sole_writer

    # Without a folder that stays, what each start gives is kept until the scores are written.
    unfinished = request.output.with_name(f"{request.output.name}.partial")
    with sole_writer(request.output) if scoring.part is None else nullcontext():
        scores = make_and_score(store, folder, request, replace(scoring, sums=scoring.sums or unfinished))
        if scoring.part is not None:
            print(f"sums {scoring.sums}")
            return {}
        about = {
            **describe_maker(folder, request),
            **evaluation_sources(store, folder, request),
            "members": str(request.members),
        }
        about |= {"seed": str(request.seed), **unreal_truth(store)}
        results = report(scores, request.output, request.scorecard, scoring, about)
        remove(unfinished)
    return results


def merge(
    sums: Path,
    *,
    first: str | None = None,
    output: Path = Path("scores.nc"),
    scorecard: Path | None = None,
    block_days: float = 10.0,
    channels: tuple[str, ...] = (),
    overwrite: bool = False,
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
        overwrite: replace existing outputs.
    """
    inputs, shown = [*sums.glob("*.json"), *sums.glob("*/*.nc")], Scoring(block_days=block_days, channels=channels)
    require_outputs(score_outputs(output, scorecard, shown), inputs, overwrite=overwrite)
    from ladcast.commands.scoring import report, unreal_truth
    from ladcast.verification.archive import merge_sums, read_claims

    scores, notes = merge_sums(sums, first)
    shown = replace(shown, regions=next(iter(scores.values())).regions)  # which have figures of their own
    require_outputs(score_outputs(output, scorecard, shown), inputs, overwrite=overwrite)
    if notes:
        print("\n".join(notes))
    claimed = read_claims(sums)[1]
    about = {"sums": str(sums), **claimed, **unreal_truth(claimed.get("truth", ""))}
    return report(scores, output, scorecard, shown, about, notes=notes)
