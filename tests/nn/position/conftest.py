"""A small grid of tokens, and position encodings whose learned parts are random."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ladcast.nn.attention import dense_scores
from ladcast.nn.position import (
    POSITION_ENCODINGS,
    EncodingOptions,
    PositionEncoding,
    TokenGrid,
    build_position_encoding,
    evenly_spaced_radians,
)

Build = Callable[..., PositionEncoding]
ScoresOf = Callable[[PositionEncoding, TokenGrid], Tensor]


@pytest.fixture
def grid() -> TokenGrid:
    """Three frames of 4 x 6 tokens, 60 degrees apart in longitude and 36 in latitude."""
    like = torch.zeros(1)
    latitude, longitude = evenly_spaced_radians(-54.0, 54.0, 4, like), evenly_spaced_radians(30.0, 330.0, 6, like)
    return TokenGrid(torch.tensor([1.0, 2.0, 0.0]), latitude, longitude)


@pytest.fixture(params=sorted(POSITION_ENCODINGS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build() -> Build:
    """Builds an encoding for heads of 16 dimensions; with `awake`, every learned number is random."""

    def build(name: str, *, heads: int = 2, awake: bool = True, area_weighted: bool = False) -> PositionEncoding:
        options = EncodingOptions(heads, axes_dim=(4, 6, 6), spacing_deg=60.0, area_weighted=area_weighted)
        encoding = build_position_encoding(name, options)
        torch.manual_seed(2)
        for parameter in encoding.parameters() if awake else ():
            nn.init.normal_(parameter)
        return encoding

    return build


def random_heads(encoding: PositionEncoding, count: int, seed: int) -> Tensor:
    """Draws one vector per head and gives it to every token, so that only positions tell tokens apart."""
    generator = torch.Generator().manual_seed(seed)
    one = torch.randn(1, encoding.options.heads, 1, encoding.options.head_dim, generator=generator)
    return one.expand(-1, -1, count, -1)


@pytest.fixture
def scores_of() -> ScoresOf:
    """Returns the scores of one query and one key, which every token has."""

    def scores_of(encoding: PositionEncoding, grid: TokenGrid, *, unplaced: int = 0) -> Tensor:
        count = len(grid.coordinates())
        width = encoding.options.heads * encoding.options.head_dim
        tokens = torch.randn(1, count, width, generator=torch.Generator().manual_seed(5))
        positions = encoding(grid, tokens, unplaced=unplaced)
        query, key = (positions.rotate(random_heads(encoding, count, seed)) for seed in (0, 1))
        change = positions.scores(query, key) if positions.scores else lambda score, *_: score
        return dense_scores(query, key, change).detach()

    return scores_of
