"""The shapes and names of the tensors that packages hand to each other, times among them, and the bounds of settings.

A `state` is in SI units, a `scaled` tensor is normalised, a `latent` is encoded and scaled. There is no fourth word.
"""

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ladcast.times import Times

State = Float[Tensor, "*batch channel lat lon"]
Scaled = Float[Tensor, "*batch channel lat lon"]
OceanMask = Bool[Tensor, "lat lon"]
Latent = Float[Tensor, "*batch latent y x"]
LatentSequence = Float[Tensor, "batch latent time y x"]
PastSequence = Float[Tensor, "batch latent past y x"]

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]


def to_epoch_seconds(times: Times | np.datetime64) -> Int[Tensor, " batch"]:
    """Converts times to whole seconds since 1970-01-01 UTC; a single time becomes a batch of one."""
    return torch.from_numpy(np.atleast_1d(times).astype("datetime64[s]").astype(np.int64))
