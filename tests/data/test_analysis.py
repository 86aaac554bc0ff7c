import numpy as np
import pytest
import torch
import xarray as xr

from ladcast.data.analysis import open_analyses, read_analysis
from ladcast.data.normalization import Normalizer, pack
from ladcast.data.regrid import regrid
from ladcast.fields import ERA5_CHANNELS, ChannelSet
from ladcast.grid import Grid
from ladcast.times import parse_time

SECOND = parse_time("2020-01-01T06")


def without(world: xr.Dataset, name: str, level: int) -> xr.Dataset:
    return world.assign({name: world[name].where(world["level"] != level)})


@pytest.mark.slow
def test_the_state_of_one_time(world, state, channels, grid):
    analysis = read_analysis(world, SECOND, channels, grid)
    torch.testing.assert_close(analysis.state, state[1], rtol=0, atol=0, equal_nan=True)
    assert (analysis.ocean == ~state[1, channels.masked_on_land[0]].isnan()).all()
    assert (analysis.time, analysis.filled) == (SECOND, ())


def test_another_grid_is_regridded(world, state, channels, grid):
    target = Grid.parse("8x5-south")
    analysis = read_analysis(world, SECOND, channels, target)
    expected = torch.from_numpy(regrid(state[1].numpy(), grid, target))
    torch.testing.assert_close(analysis.state, expected, rtol=0, atol=0, equal_nan=True)
    assert analysis.ocean.shape == (4, 8)


def test_one_opening_serves_all_times(world, channels, grid, tmp_path):
    path = tmp_path / "initial.nc"
    world.to_netcdf(path)
    analyses = open_analyses(path, channels, grid)
    path.unlink()  # nothing can open it again
    for time in analyses.times:
        alone = read_analysis(world, time, channels, grid)
        torch.testing.assert_close(analyses.read(time).state, alone.state, rtol=0, atol=0, equal_nan=True)


def test_an_unknown_time_lists_the_nearest(world, channels, grid):
    with pytest.raises(ValueError, match=r"time 2020-01-01T07, got 5 times.*nearest: 2020-01-01T00, 2020-01-01T06, "):
        read_analysis(world, parse_time("2020-01-01T07"), channels, grid)


def test_a_time_further_off_than_nanoseconds_count_is_one_that_is_not_there(world, channels, grid):
    with pytest.raises(ValueError, match=r"time 1700-01-01T00, got 5 times.*nearest: 2020-01-01T00"):
        read_analysis(world, parse_time("1700-01-01T00"), channels, grid)


def test_gaps_are_refused_by_name_and_share(world, channels, grid):
    with pytest.raises(ValueError, match=r"NaN in t500 \(100%\).*--fill nearest-level"):
        read_analysis(without(world, "temperature", 500), SECOND, channels, grid)


def test_the_nearest_level_is_nearest_in_log_pressure(world, grid):
    # From 600 hPa, 400 hPa is nearer in pressure and 850 hPa in its logarithm.
    levels = (400, 600, 850)
    channels = ChannelSet(("temperature",), (), levels)
    holed = without(world.assign_coords(level=list(levels)), "temperature", 600)
    analysis = read_analysis(holed, SECOND, channels, grid, fill="nearest-level")
    assert analysis.filled == ("t600",)
    torch.testing.assert_close(analysis.state[1], analysis.state[2])


def test_only_the_points_that_lack_are_filled(world, state, channels, grid):
    south = world["latitude"] < 0
    below = world["temperature"].where((world["level"] != 850) | ~south)
    analysis = read_analysis(world.assign(temperature=below), SECOND, channels, grid, fill="nearest-level")
    filled, t850, t500 = (
        analysis.state[channels.index("t850")],
        *state[1, [channels.index(n) for n in ("t850", "t500")]],
    )
    torch.testing.assert_close(filled[:4], t500[:4])
    torch.testing.assert_close(filled[4:], t850[4:])


def test_a_variable_without_complete_level_needs_the_mean(world, channels, grid):
    empty = world.assign(temperature=world["temperature"] * np.nan)
    with pytest.raises(ValueError, match=r"'temperature' has no complete level to fill t300"):
        read_analysis(empty, SECOND, channels, grid, fill="nearest-level")
    with pytest.raises(ValueError, match="needs a normalizer"):
        read_analysis(empty, SECOND, channels, grid, fill="mean")
    mean = torch.arange(len(channels)).float()
    normalizer = Normalizer(channels, mean, torch.ones(len(channels)))
    analysis = read_analysis(empty, SECOND, channels, grid, fill="mean", normalizer=normalizer)
    assert analysis.filled == ("t300", "t500", "t850")
    assert (analysis.state[channels.index("t850")] == channels.index("t850")).all()


def test_land_in_the_sst_is_no_gap(world, grid):
    only_sst = ChannelSet((), ("sea_surface_temperature",))
    assert read_analysis(world, SECOND, only_sst, grid).filled == ()


class TestGfs:
    """The real GFS file, which lacks the vertical velocity at 50 hPa."""

    time = parse_time("2011-10-11T00")

    @pytest.fixture
    def path(self, shared):
        return shared / "kit/gfs/gfs_240x121_wb2names_2times.nc"

    def test_refused_by_default(self, path):
        with pytest.raises(ValueError, match=r"gfs_240x121.*NaN in w50 \(100%\).*--fill nearest-level"):
            read_analysis(path, self.time, ERA5_CHANNELS, Grid.parse("240x121"))

    @pytest.mark.slow
    def test_filled_when_told_and_otherwise_as_in_the_file(self, path):
        grid = Grid.parse("240x121-south")
        analysis = read_analysis(path, self.time, ERA5_CHANNELS, grid, fill="nearest-level")
        assert analysis.filled == ("w50",)
        plain = xr.open_dataset(path).sel(time=self.time).transpose("level", "latitude", "longitude")
        plain = plain.isel(latitude=slice(1, None)).expand_dims("time")
        expected = pack(plain, ERA5_CHANNELS)[0]
        w50, w100 = ERA5_CHANNELS.index("w50"), ERA5_CHANNELS.index("w100")
        expected[w50] = expected[w100]
        torch.testing.assert_close(analysis.state, expected, rtol=0, atol=0, equal_nan=True)
        assert float(analysis.ocean.float().mean()) == pytest.approx(0.66, abs=0.02)

    @pytest.mark.slow
    def test_regridded_to_a_coarse_grid_it_keeps_its_area_means(self, path):
        source, target = Grid.parse("240x121"), Grid.parse("48x25")
        coarse = read_analysis(path, self.time, ERA5_CHANNELS, target, fill="nearest-level").state
        fine = read_analysis(path, self.time, ERA5_CHANNELS, source, fill="nearest-level").state
        for name in ("z500", "t850", "q850", "msl", "tp6h"):
            index = ERA5_CHANNELS.index(name)
            means = [
                float((state[index].double().mean(-1) * torch.from_numpy(grid.area_weights)).mean())
                for state, grid in ((coarse, target), (fine, source))
            ]
            assert means[0] == pytest.approx(means[1], rel=1e-6)

    @pytest.mark.slow
    def test_the_grib_file_starts_a_forecast_as_it_is(self, shared):
        pytest.importorskip("cfgrib")
        path, time = shared / "kit/gfs/gfs.t12z.pgrbf120.2p5deg.grib2", parse_time("2011-01-15T12")
        analysis = read_analysis(path, time, ERA5_CHANNELS, Grid.parse("240x121-south"), fill="nearest-level")
        assert analysis.filled == ("w50",)
        made = {text.partition(":")[0] for text in analysis.derived}
        assert made >= {"geopotential", "specific_humidity", "sea_surface_temperature"}
        nan = analysis.state.isnan().any(dim=(-2, -1))
        assert nan.nonzero().tolist() == [list(ERA5_CHANNELS.masked_on_land)]
