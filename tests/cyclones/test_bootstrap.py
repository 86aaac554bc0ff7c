"""Resampling storms."""

import numpy as np

from ladcast.cyclones.bootstrap import draw_storms, interval


def test_each_sample_holds_as_many_storms_as_there_are():
    drawn = draw_storms(7, np.random.default_rng(0), samples=50)
    assert drawn.shape == (50, 7)
    assert (drawn.sum(1) == 7).all()


def test_the_interval_of_a_mean_is_that_of_its_normal_distribution():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(200)
    drawn = draw_storms(200, rng, samples=4000)
    low, high = interval(drawn @ values / 200, 200)
    width = 2 * 1.645 * values.std() / np.sqrt(200)
    assert abs((high - low) / width - 1) < 0.08


def test_one_storm_has_no_interval():
    assert np.isnan(interval(np.ones((10, 3)), 1)).all()
