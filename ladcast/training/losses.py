"""The autoencoder's reconstruction loss."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Tensor

from ladcast.types import Scaled


def relative_l2(
    reconstruction: Scaled,
    scaled: Scaled,
    *,
    row_weight: Float[Tensor, " lat"],
    valid: Bool[Tensor, "channel lat lon"],
) -> Float[Tensor, ""]:
    """Returns the mean over samples and channels of |x' - x| / |x| in the area-weighted L2 norm.

    `valid` leaves out points without truth (sea surface temperature over land).
    """
    weight = row_weight[:, None] * valid
    error = (weight * (reconstruction - scaled).float() ** 2).sum(dim=(-2, -1))
    size = (weight * scaled.float() ** 2).sum(dim=(-2, -1))
    return (error / (size + 1e-6)).clamp_min(1e-12).sqrt().mean()
