"""The shapes and names of the tensors that packages hand to each other, and the bounds of settings.

A `state` is in SI units, a `scaled` tensor is normalised, a `latent` is encoded and scaled. There is no fourth word.
"""

from typing import Annotated

from annotated_types import Ge, Gt
from jaxtyping import Bool, Float
from torch import Tensor

State = Float[Tensor, "*batch channel lat lon"]
Scaled = Float[Tensor, "*batch channel lat lon"]
OceanMask = Bool[Tensor, "lat lon"]
Latent = Float[Tensor, "*batch latent y x"]
LatentSequence = Float[Tensor, "batch latent time y x"]
PastSequence = Float[Tensor, "batch latent past y x"]

Count = Annotated[int, Ge(1)]
Positive = Annotated[float, Gt(0)]
