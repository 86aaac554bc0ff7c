"""ALiBi: attention decays with distance on the globe and in time."""

from __future__ import annotations

import math

from torch import Tensor

from ladcast.nn.position.base import Heads, PositionEncoding, ScoreMod, Scores, TokenGrid


class GeodesicALiBi(PositionEncoding):
    """Subtracts m_h (great-circle angle / token spacing + |difference in frames|) from the scores of head h.

    Attention with linear biases (arXiv 2108.12409), made symmetric in time and put on the sphere. Nothing is learned
    and nothing of the size of tokens x tokens is stored: the distance is computed where a score is.
    """

    def scores(self, grid: TokenGrid) -> Scores:
        time, latitude, longitude = grid.coordinates().unbind(-1)
        x, y, z = latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin(), latitude.sin()
        slope = time.new_tensor(alibi_slopes(self.options.heads))
        tokens_per_radian = 180 / math.pi / self.options.spacing_deg

        def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            # From the chord, as the arc cosine of the product of unit vectors loses small angles.
            half_chord_squared = ((x[i] - x[j]).square() + (y[i] - y[j]).square() + (z[i] - z[j]).square()) / 4
            angle = 2 * half_chord_squared.clamp(max=1.0).sqrt().asin()
            return score - slope[head] * (tokens_per_radian * angle + (time[i] - time[j]).abs())

        def scores(query: Heads, key: Heads) -> ScoreMod:
            return score_mod

        return scores


def alibi_slopes(heads: int) -> list[float]:
    """Returns 2^(-8h/n), h = 1 .. n; unless n is a power of two, those of the lower power p, then every second of 2p.

    Source: Press et al. 2021, arXiv 2108.12409.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[0::2][: heads - power]
