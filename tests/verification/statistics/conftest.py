"""A case whose members and truth are drawn from one distribution."""

import numpy as np
import pytest
import torch

from ladcast.grid import Grid
from ladcast.verification.case import GLOBE, REGIONS, Area, Case

GRID = Grid.regular(60, 30)
SHAPE = (2, *GRID.shape)
REGION_PAIR = (GLOBE, REGIONS["tropics"])


@pytest.fixture
def case(generator: torch.Generator) -> Case:
    """Members and truth from one distribution, with its exact quantiles as the climatology."""
    drawn = torch.randn(8, *SHAPE, generator=generator, dtype=torch.float64)
    weights = torch.from_numpy(np.stack([region.weights(GRID) for region in REGION_PAIR]))
    area = Area(GRID, REGION_PAIR, weights, torch.ones(SHAPE, dtype=torch.bool))
    quantiles = torch.tensor([-1.2816, 1.2816]).double().reshape(2, 1, 1, 1).expand(2, *SHAPE)
    return Case(drawn[1:], drawn[0], area, {"quantiles": quantiles}, (0.1, 0.9))
