"""Encodings that change scores: the four tables of Huang et al. 2020 (arXiv 2009.13658) on the globe, and ALiBi.

Offsets of two tokens are counted in frames, rows and columns of the training grid, rounded to whole ones (halves down,
so that equal offsets are rounded alike): a table serves any grid and any number of frames. Columns wrap around the
globe; frames are clipped at the largest difference kept.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ladcast.nn.position.base import EncodingOptions, Heads, PositionEncoding, ScoreMod, Scores, TokenGrid, token_axes

Offsets = Int[Tensor, "_ _"]
"""An index for each pair of frames, of rows or of columns: from the first one to the second one."""
Differences = Float[Tensor, "_ _"]


class RelativeEncoding(PositionEncoding):
    """Knows the sizes of the tables and where in them the offset of two frames, rows or columns lies."""

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__(options)
        self.num_columns = round(360 / options.spacing_deg)
        self.reach = (options.max_frames, round(180 / options.spacing_deg))
        """Largest offsets in frames and rows."""

    @property
    def table_shape(self) -> tuple[int, int, int]:
        """Returns the numbers of different offsets in frames, rows and columns."""
        return 2 * self.reach[0] + 1, 2 * self.reach[1] + 1, self.num_columns

    def offsets(self, grid: TokenGrid) -> tuple[Offsets, Offsets, Offsets]:
        """Returns the index of the offset from each frame, row and column to each other one."""
        frames, rows, columns = (_rounded(differences) for differences in self.differences(grid))
        frames, rows = (
            offset.clamp(-reach, reach) + reach for offset, reach in zip((frames, rows), self.reach, strict=True)
        )
        return frames, rows, columns % self.num_columns

    def differences(self, grid: TokenGrid) -> tuple[Differences, Differences, Differences]:
        """Returns how many frames, rows and columns it is from each to each other one, columns eastward."""
        spacing = math.radians(self.options.spacing_deg)
        positions = grid.frames, grid.latitude / spacing, grid.longitude * (self.num_columns / (2 * math.pi))
        frames, rows, columns = (position[None, :] - position[:, None] for position in positions)
        return frames, rows, columns % self.num_columns


def _rounded(differences: Differences) -> Offsets:
    """Rounds halves down, and what float noise makes of them."""
    return (differences + (0.5 - 1e-3)).floor().long()


class SignedScale(RelativeEncoding):
    """Multiplies the scores by a scalar per head and signed offset: (q_i.k_j) a_(j-i) / sqrt(d) (method 2).

    What is learned is a - 1, so that weight decay pulls towards no encoding.
    """

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__(options)
        self.change = nn.Parameter(torch.zeros(options.heads, *self.table_shape))

    def scores(self, grid: TokenGrid) -> Scores:
        scale, shape = 1 + self.change, grid.shape
        frames, rows, columns = self.offsets(grid)

        def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            (time_i, row_i, column_i), (time_j, row_j, column_j) = token_axes(i, shape), token_axes(j, shape)
            return score * scale[head, frames[time_i, time_j], rows[row_i, row_j], columns[column_i, column_j]]

        return lambda query, key: score_mod


class AbsoluteScale(SignedScale):
    """Multiplies the scores by a scalar per head and absolute offset along each axis (method 1)."""

    @property
    def table_shape(self) -> tuple[int, int, int]:
        return self.reach[0] + 1, self.reach[1] + 1, self.num_columns // 2 + 1

    def offsets(self, grid: TokenGrid) -> tuple[Offsets, Offsets, Offsets]:
        frames, rows, columns = self.differences(grid)
        nearest = torch.minimum(columns, self.num_columns - columns)
        frames, rows, columns = (_rounded(distance) for distance in (frames.abs(), rows.abs(), nearest))
        return frames.clamp(max=self.reach[0]), rows.clamp(max=self.reach[1]), columns.clamp(max=self.num_columns // 2)


class VectorTables(RelativeEncoding):
    """Holds vectors a_ij that all heads share: a sum of one for the frames, one for the rows and one for the columns.

    A joint table would need a product with each of its entries; the sum, as of MViTv2 (arXiv 2112.01526, eq. 4), has
    three small tables, and a value also for combinations of offsets that training never saw.
    """

    def __init__(self, options: EncodingOptions) -> None:
        super().__init__(options)
        frames, rows, columns = (nn.Parameter(torch.zeros(size, options.head_dim)) for size in self.table_shape)
        self.frames, self.rows, self.columns = frames, rows, columns

    def vectors(self, grid: TokenGrid) -> list[Float[Tensor, "_ _ dim"]]:
        """Returns the three parts of a_ij / sqrt(d): for each pair of frames, of rows, of columns."""
        tables = (self.frames, self.rows, self.columns)
        root = math.sqrt(self.options.head_dim)
        return [table[index] / root for table, index in zip(tables, self.offsets(grid), strict=True)]


class ProductVectors(VectorTables):
    """Makes the scores sum_z (q_i * k_j * (1 + a_ij))_z / sqrt(d) (method 3): as without positions where a is zero.

    It needs all scores in memory: three products of queries and keys, in each of which one axis weighs the dimensions.
    """

    def scores(self, grid: TokenGrid) -> Scores:
        by_time, by_row, by_column = self.vectors(grid)
        shape = grid.shape

        def scores(query: Heads, key: Heads) -> ScoreMod:
            q, k = torch.unflatten(query, 2, shape), torch.unflatten(key, 2, shape)
            products = (
                torch.einsum("bhtyxd,tud,bhuvwd->bhtyxuvw", q, by_time.to(q.dtype), k)
                + torch.einsum("bhtyxd,yvd,bhuvwd->bhtyxuvw", q, by_row.to(q.dtype), k)
                + torch.einsum("bhtyxd,xwd,bhuvwd->bhtyxuvw", q, by_column.to(q.dtype), k)
            )
            change = products.flatten(5).flatten(2, 4)

            def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
                return score + change[batch, head, i, j]

            return score_mod

        return scores


class AddedVectors(VectorTables):
    """Adds (q_i.a_ij + k_j.a_ij) / sqrt(d) to the scores (method 4, the paper's best).

    Queries and keys meet each axis's vectors once, so that no term is larger than tokens x (frames, rows or columns).
    """

    def scores(self, grid: TokenGrid) -> Scores:
        by_time, by_row, by_column = self.vectors(grid)
        shape = grid.shape

        def scores(query: Heads, key: Heads) -> ScoreMod:
            q, k = torch.unflatten(query, 2, shape), torch.unflatten(key, 2, shape)
            q_time = torch.einsum("bhtyxd,tud->bhtyxu", q, by_time.to(q.dtype)).flatten(2, 4)
            q_row = torch.einsum("bhtyxd,yvd->bhtyxv", q, by_row.to(q.dtype)).flatten(2, 4)
            q_column = torch.einsum("bhtyxd,xwd->bhtyxw", q, by_column.to(q.dtype)).flatten(2, 4)
            k_time = torch.einsum("bhuvwd,tud->bhuvwt", k, by_time.to(k.dtype)).flatten(2, 4)
            k_row = torch.einsum("bhuvwd,yvd->bhuvwy", k, by_row.to(k.dtype)).flatten(2, 4)
            k_column = torch.einsum("bhuvwd,xwd->bhuvwx", k, by_column.to(k.dtype)).flatten(2, 4)

            def score_mod(score: Tensor, batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
                (time_i, row_i, column_i), (time_j, row_j, column_j) = token_axes(i, shape), token_axes(j, shape)
                of_query = q_time[batch, head, i, time_j] + q_row[batch, head, i, row_j]
                of_key = k_time[batch, head, j, time_i] + k_row[batch, head, j, row_i]
                of_columns = q_column[batch, head, i, column_j] + k_column[batch, head, j, column_i]
                return score + of_query + of_key + of_columns

            return score_mod

        return scores


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

        return lambda query, key: score_mod


def alibi_slopes(heads: int) -> list[float]:
    """Returns 2^(-8h/n), h = 1 .. n; unless n is a power of two, those of the lower power p, then every second of 2p.

    Source: Press et al. 2021, arXiv 2108.12409.
    """
    power = 1 << (heads.bit_length() - 1)
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    return slopes if power == heads else slopes + alibi_slopes(2 * power)[0::2][: heads - power]
