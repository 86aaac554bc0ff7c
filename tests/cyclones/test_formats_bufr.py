"""Ensemble tracks as ECMWF publishes them, against the best track of the same storm."""

import re
from pathlib import Path

import numpy as np
import pytest

from ladcast.cyclones import (
    contingency,
    ensemble_mean,
    identify,
    position_errors,
    read_best_tracks,
    read_ensemble_tracks,
    select_storm,
    spread_skill,
    strike_probability,
)
from ladcast.cyclones.errors import lead_hours
from ladcast.cyclones.table import storms
from ladcast.grid import Grid

pytest.importorskip("eccodes", reason="BUFR needs eccodes (extra `grib`)")
SAMPLE = Path(__file__).parent / "data" / "ecmwf_ensemble_tracks_20151118.bufr"
IN_FA = "2015321N04164"


@pytest.mark.slow
def test_members_times_and_positions_are_those_of_the_file():
    tracks = read_ensemble_tracks(SAMPLE)
    assert storms(tracks) == ["27W", "70E", "71W"]
    assert tracks.attrs["members"] == 50
    assert sorted(set(tracks["number"].values.tolist())) == list(range(1, 51))
    in_fa = select_storm(tracks, "27W")
    first = in_fa.isel(point=np.flatnonzero(in_fa["number"].values == 1)[:2])
    assert first["name"].values.tolist() == ["IN-FA"] * 2
    assert lead_hours(first).tolist() == [0, 6]
    np.testing.assert_allclose(first["latitude"], [5.4, 6.0])
    np.testing.assert_allclose(first["longitude"], [156.9, 156.0])
    np.testing.assert_allclose(first["msl"], [100_000, 99_800])
    np.testing.assert_allclose(first["wind"], [19.0, 20.1])
    everyone = read_ensemble_tracks(SAMPLE, perturbed=False)
    assert everyone.attrs["members"] == 52
    # six members have the storm after 10 days, when the first has lost it
    assert (in_fa.sizes["point"], select_storm(everyone, "27W").sizes["point"]) == (1675, 1746)
    assert (lead_hours(in_fa) == 240).sum() == 6


@pytest.mark.slow
def test_in_fa_is_verified_from_end_to_end(shared: Path):
    best = read_best_tracks(shared / "kit/tracks/ibtracs_official_layout_10storms_derived.csv")
    named = identify(read_ensemble_tracks(SAMPLE), best)
    assert storms(named) == [IN_FA, "70E", "71W"]
    tracks, observed = select_storm(named, IN_FA), select_storm(best, IN_FA)
    errors = position_errors(ensemble_mean(tracks), observed)
    by_lead = dict(zip(lead_hours(errors).tolist(), errors["distance_km"].values, strict=True))
    print({lead / 24: round(float(error)) for lead, error in by_lead.items() if lead % 24 == 0})
    assert by_lead[0] < 50
    assert by_lead[24] < 100
    assert 100 < by_lead[120] < 400
    np.testing.assert_allclose(np.hypot(errors["along_km"], errors["cross_km"]), errors["distance_km"])
    ratio = spread_skill(errors)["spread_skill"].sel(lead=[48, 72, 96, 120])
    assert ((ratio > 0.5) & (ratio < 3)).all()
    counts = contingency(named, observed)
    assert float(counts["hit_rate"].sel(lead=24)) == 1
    assert float(counts["hit_rate"].sel(lead=192)) < 0.9
    probability = strike_probability(tracks, Grid.parse("360x181"))
    assert float(probability.sel(latitude=5, longitude=157)) == 1
    assert 0 < float(probability.sel(latitude=13, longitude=141)) < 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16))
def test_a_damaged_file_is_refused_with_its_message_or_read(seed: int, tmp_path: Path):
    """One of four kinds of damage: cut off, bits flipped, bytes of the header overwritten, a piece left out."""
    draw, raw = np.random.default_rng(seed), bytearray(SAMPLE.read_bytes())
    place = int(draw.integers(8, len(raw)))
    if seed % 4 == 0:
        del raw[place:]
    elif seed % 4 == 1:
        for at in draw.integers(0, len(raw), 20):
            raw[at] ^= 1 << int(draw.integers(8))
    elif seed % 4 == 2:
        at = int(draw.integers(8, 120))
        raw[at : at + 4] = draw.bytes(4)
    else:
        del raw[place : place + 50]
    (tmp_path / "x.bufr").write_bytes(raw)
    assert re.search(
        r"x\.bufr(: expected BUFR with tracks.*fetch it again| holds no BUFR)|^read$", answer(tmp_path / "x.bufr")
    )


def answer(path: Path) -> str:
    try:
        tracks = read_ensemble_tracks(path)
    except ValueError as error:
        return str(error)
    return "read" if (abs(tracks["latitude"].values) <= 90).all() else "off the globe"


@pytest.mark.slow
def test_what_is_no_bufr_is_refused(tmp_path: Path):
    (tmp_path / "empty.bufr").write_bytes(b"no message here")
    with pytest.raises(ValueError, match="holds no BUFR message"):
        read_ensemble_tracks(tmp_path / "empty.bufr")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bufr"):
        read_ensemble_tracks(tmp_path / "nowhere.bufr")
