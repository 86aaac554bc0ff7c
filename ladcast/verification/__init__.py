"""Verification: statistics of forecasts against the truth, sums that merge, metrics and tables."""

from ladcast.verification.accumulate import Accumulator, merge
from ladcast.verification.climatology import Climatology, fit_climatology
from ladcast.verification.score import persistence, score, score_climatology, score_starts
from ladcast.verification.table import format_table

__all__ = [
    "Accumulator",
    "Climatology",
    "fit_climatology",
    "format_table",
    "merge",
    "persistence",
    "score",
    "score_climatology",
    "score_starts",
]
