"""`ladcast evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from ladcast.commands.common import FLAT, Results
from ladcast.commands.options import EvaluationRequest, Scoring
from ladcast.released.registry import DEFAULT_MODEL, find_model

DEFAULT_SCORING = Scoring()


def evaluate(
    store: Path,
    *,
    request: Annotated[EvaluationRequest, FLAT],
    scoring: Annotated[Scoring, FLAT] = DEFAULT_SCORING,
    model: str = DEFAULT_MODEL,
) -> Results:
    """Make forecasts from many starts and score them at once; no fields are stored, and a stopped run goes on.

    Args:
        store: states to start from, which are also the truth.
        request: which forecasts to make.
        scoring: what to compute, where, and which share of it.
        model: name of an embedded model, or a checkpoint folder.
    """
    from ladcast.commands.evaluation import make_and_score, provenance
    from ladcast.commands.scoring import report

    folder = find_model(model)
    scores = make_and_score(store, folder, request, scoring)
    if scoring.part is not None:
        print(f"sums {scoring.sums}")
        return {}
    about = {"model": model, **provenance(store, folder, request), "members": str(request.members)}
    about["seed"] = str(request.seed)
    return report(scores, request.output, request.scorecard, scoring, about)
