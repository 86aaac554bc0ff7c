"""Cyclones: track them in every member, read best tracks, verify positions and strike probabilities."""

from ladcast.cyclones.best_track import read_best_tracks
from ladcast.cyclones.detection import Detection
from ladcast.cyclones.errors import (
    contingency,
    ensemble_mean,
    error_growth,
    homogeneous,
    identify,
    position_errors,
    spread_skill,
)
from ladcast.cyclones.formats import read_ensemble_tracks, read_tracks, write_tracks
from ladcast.cyclones.stitching import Stitching
from ladcast.cyclones.strikes import strike_probability, strike_scores, strike_tables, weights_around
from ladcast.cyclones.table import make_table, select_storm
from ladcast.cyclones.tracker import follow_storm, track_all

__all__ = [
    "Detection",
    "Stitching",
    "contingency",
    "ensemble_mean",
    "error_growth",
    "follow_storm",
    "homogeneous",
    "identify",
    "make_table",
    "position_errors",
    "read_best_tracks",
    "read_ensemble_tracks",
    "read_tracks",
    "select_storm",
    "spread_skill",
    "strike_probability",
    "strike_scores",
    "strike_tables",
    "track_all",
    "weights_around",
    "write_tracks",
]
