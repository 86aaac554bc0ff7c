"""Several systems on the same initial times, lead times, levels and grid, beside baselines, and their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from ladcast.verification.accumulate import Accumulator, merge
from ladcast.verification.align import Intersection
from ladcast.verification.baselines import climatological_ensemble, persistence
from ladcast.verification.climatology import Climatology
from ladcast.verification.score import ScoreOptions, score, score_climatology

MEANS_ONLY = "No climatology as a forecast of its own: it has no standard deviations (`<variable>_std`)."


@dataclass(frozen=True)
class Systems:
    """Opened forecasts, cut to what they have in common, the truth, and what baselines need.

    Attributes:
        years: states whose other years are the members of a probabilistic climatology.
        report: what is common, and what was left out.
        baselines: whether persistence and climatology are scored too.
    """

    forecasts: Mapping[str, xr.Dataset]
    truth: xr.Dataset
    report: Intersection
    climatology: Climatology | None = None
    years: xr.Dataset | None = None
    baselines: bool = True

    @property
    def notes(self) -> list[str]:
        """Says what is scored and what is left out."""
        notes = list(self.report.lines())
        if not self.can_persist:
            notes.append("No persistence: the truth lacks the initial times.")
        if self.climatology is None:
            notes.append("No climatology: name one with --climatology.")
        elif not self.climatology.stds:
            notes.append(MEANS_ONLY)
        return notes

    @property
    def names(self) -> list[str]:
        """Returns the names of all that is scored, in the order of the comparison."""
        wanted = {
            "other years": self.years is not None,
            "persistence": self.baselines and self.can_persist,
            "climatology": self.baselines and self.climatology is not None and bool(self.climatology.stds),
        }
        return [*self.forecasts, *(name for name, is_scored in wanted.items() if is_scored)]

    @property
    def can_persist(self) -> bool:
        """Says whether the truth holds all starts."""
        return bool(np.isin(self.report.starts, self.truth["time"].values).all())

    def score(self, starts: Sequence[np.datetime64], options: ScoreOptions) -> dict[str, Accumulator]:
        """Scores every system and baseline from these initial times, one after the other."""
        parts: dict[str, list[Accumulator]] = {}
        for start in starts:
            for name, scores in self._score_start(start, options):
                parts.setdefault(name, []).append(scores)
        return {name: merge(some) for name, some in parts.items()}

    def _score_start(self, start: np.datetime64, options: ScoreOptions) -> Iterator[tuple[str, Accumulator]]:
        """Yields the score of each system and baseline; of baselines only what is always computed."""
        truth, climatology = self.truth, self.climatology
        cut = {name: ds.sel(time=[start]) for name, ds in self.forecasts.items()}
        first = next(iter(cut.values()))
        for name, forecast in cut.items():
            yield name, score(forecast, truth, climatology=climatology, options=options)
        if self.years is not None:
            others = climatological_ensemble(self.years, first)
            yield "other years", score(others, truth, climatology=climatology, options=options)
        plain = replace(options, statistics=None)
        if "persistence" in self.names:
            kept = persistence(truth.sel(time=[start]), first)
            yield "persistence", score(kept, truth, climatology=climatology, options=plain)
        if climatology is not None and "climatology" in self.names:
            yield "climatology", score_climatology(climatology, first, truth, options=plain)
