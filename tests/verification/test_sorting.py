"""The sorting network sorts: by the 0-1 principle, and beside NumPy."""

from itertools import product

import numpy as np
import pytest

from ladcast.verification import sorting


@pytest.mark.parametrize("count", range(1, 11))
def test_the_network_sorts_everything_that_it_sorts_of_zeros_and_ones(count: int) -> None:
    """Knuth, theorem 5.3.4 Z: what sorts every sequence of zeros and ones sorts every sequence."""
    bits = np.array(list(product((0.0, 1.0), repeat=count))).T
    np.testing.assert_array_equal(np.stack(sorting.sort_rows(list(bits.copy()))), np.sort(bits, axis=0))


@pytest.mark.parametrize("count", [16, 50, 51, 100])
def test_rows_are_sorted_as_numpy_sorts_them(count: int) -> None:
    values = np.random.default_rng(count).normal(size=(count, 33)).astype(np.float32)
    np.testing.assert_array_equal(np.stack(sorting.sort_rows(list(values.copy()))), np.sort(values, axis=0))


@pytest.mark.parametrize("cells_at_once", [1, 7, 10_000])
def test_blocks_do_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, cells_at_once: int) -> None:
    random = np.random.default_rng(0)
    members, truth = random.normal(size=(9, 100)).astype(np.float32), random.normal(size=100).astype(np.float32)
    before = members.copy()
    expected = sorting.moments_in_cache(members, truth)
    monkeypatch.setattr(sorting, "CELLS_AT_ONCE", cells_at_once)
    np.testing.assert_array_equal(sorting.moments_in_cache(members, truth), expected)
    np.testing.assert_array_equal(members, before)
    exact = members.astype(float)
    np.testing.assert_allclose(expected[0], (exact - truth).mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(expected[1], exact.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(expected[2], abs(exact - truth).mean(0), rtol=1e-6)
    np.testing.assert_allclose(expected[3], abs(exact[:, None] - exact).sum((0, 1)) / (9 * 8), rtol=1e-6)


def test_the_network_of_fifty_members_is_small() -> None:
    assert len(sorting.comparisons(50)) == 395
