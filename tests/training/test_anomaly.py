"""The watch over gradients: what it calls an anomaly, and what it does then."""

import pytest

from ladcast.training.anomaly import AnomalyPolicy, GradientWatch


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf")), (float("-inf"), 1.0)])
def test_what_is_not_finite_is_an_anomaly_from_the_first_step(loss: float, norm: float):
    watch = GradientWatch(AnomalyPolicy())
    assert watch.find(loss, norm) is not None
    assert watch.steps == 0


def test_a_spike_is_one_only_after_the_norm_is_known():
    watch = GradientWatch(AnomalyPolicy("skip", spike=5.0))
    assert watch.find(1.0, 100.0) is None
    for _ in range(400):
        assert watch.find(1.0, 2.0) is None
    assert watch.mean == pytest.approx(2, rel=0.1)
    assert "more than 5 times its mean" in str(watch.find(1.0, 12.0))
    assert watch.find(1.0, 8.0) is None


def test_without_a_spike_set_any_finite_norm_is_fine():
    watch = GradientWatch(AnomalyPolicy())
    assert all(watch.find(1.0, 10.0**power) is None for power in range(-30, 30))


def test_the_mean_is_that_of_all_steps_at_first():
    watch = GradientWatch(AnomalyPolicy())
    for norm in (1.0, 2.0, 6.0):
        watch.find(0.0, norm)
    assert watch.mean == pytest.approx(3)


def test_a_restored_watch_goes_on():
    watch, twin = (GradientWatch(AnomalyPolicy("skip", spike=3.0)) for _ in range(2))
    for step in range(130):
        watch.find(1.0, 1.0 + step % 3)
    watch.count("x", 3)
    twin.restore(watch.state())
    assert twin.state() == watch.state()
    assert (watch.find(1.0, 7.0), watch.mean) == (twin.find(1.0, 7.0), twin.mean)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="spike > 1"):
        AnomalyPolicy(spike=0.5)
