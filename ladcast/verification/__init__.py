"""Verification: statistics of forecasts against the truth, accumulators that merge, metrics, intervals and tables."""

from ladcast.verification.accumulate import Accumulator, merge_accumulators
from ladcast.verification.archive import metrics_of, read_sums, scores_dataset, write_scores, write_sums
from ladcast.verification.bootstrap import BlockBootstrap, compare, intervals
from ladcast.verification.climatology import Climatology, fit_climatology
from ladcast.verification.score import ScoreOptions, score, score_climatology
from ladcast.verification.statistics import Axis, Metric, Statistic, register
from ladcast.verification.systems import Intersection, climatological_ensemble, intersect, persistence
from ladcast.verification.table import format_table

__all__ = [
    "Accumulator",
    "Axis",
    "BlockBootstrap",
    "Climatology",
    "Intersection",
    "Metric",
    "ScoreOptions",
    "Statistic",
    "climatological_ensemble",
    "compare",
    "fit_climatology",
    "format_table",
    "intersect",
    "intervals",
    "merge_accumulators",
    "metrics_of",
    "persistence",
    "read_sums",
    "register",
    "score",
    "score_climatology",
    "scores_dataset",
    "write_scores",
    "write_sums",
]
