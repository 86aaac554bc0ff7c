"""Wind as a vector: squares and products of u and v add up, and roots are taken after that."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ladcast.fields import Channel
from ladcast.verification.metric import Values

COMPONENTS = {
    "u_component_of_wind": ("v_component_of_wind", "wind"),
    "10m_u_component_of_wind": ("10m_v_component_of_wind", "wind10"),
}
ADDITIVE = (
    "squared_error",
    "variance",
    "anomaly_product",
    "anomaly_power",
    "true_anomaly_power",
    *(f"{group}_power_{name}" for group in ("zonal", "spherical") for name in ("members", "mean", "truth")),
)
"""Statistics that are sums over the components of a vector; every other one of a wind vector is NaN."""


def wind_pairs(channels: tuple[Channel, ...]) -> dict[str, tuple[int, int]]:
    """Returns the positions of u and v for each wind vector that both are there for, such as `wind850`."""
    index = {channel: position for position, channel in enumerate(channels)}
    pairs = {}
    for channel, position in index.items():
        if channel.variable not in COMPONENTS:
            continue
        other, name = COMPONENTS[channel.variable]
        partner = index.get(Channel(other, channel.level))
        if partner is not None:
            pairs[f"{name}{channel.level or ''}"] = (position, partner)
    return pairs


def with_winds(sums: Mapping[str, Values], channels: tuple[Channel, ...], axis: int) -> dict[str, Values]:
    """Appends the wind vectors to the channels on `axis`, in the order of `wind_pairs`."""
    pairs = wind_pairs(channels)
    if not pairs:
        return dict(sums)
    eastward, northward = (list(some) for some in zip(*pairs.values(), strict=True))
    extended = {}
    for name, values in sums.items():
        wind = np.take(values, eastward, axis) + np.take(values, northward, axis)
        extended[name] = np.concatenate([values, wind if name in ADDITIVE else np.full_like(wind, np.nan)], axis)
    return extended
