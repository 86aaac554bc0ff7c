"""The kernels of tokens: what they compute in Triton's interpreter, and on a GPU within the network."""

from dataclasses import replace

import pytest
import torch

from ladcast.models.transformer import LatentTransformer, TransformerConfig

CONFIG = TransformerConfig(
    4,
    (-60.0, 60.0),
    (0.0, 315.0),
    heads=3,
    head_dim=16,
    rope_axes_dim=(4, 6, 6),
    dual_blocks=1,
    single_blocks=1,
    position="geo",
)
BESIDE = replace(CONFIG, dual_blocks=0, refiner_blocks=0, past_beside=True, frames_per_token=4)
PROGRAM = """
import torch
from torch.nn import functional as F
from ladcast.nn import token_kernels as kernels
from ladcast.nn.block import gated_sum, modulated_norm
from ladcast.nn.position import Rotation
from torch.testing import assert_close
torch.manual_seed(0)
tokens, changes = torch.randn(2, 5, 24), torch.randn(2, 2, 5, 24)
scale, shift, gate = torch.randn(2, 1, 72).chunk(3, -1)
normed = kernels.modulated_norm(tokens, scale=scale, shift=shift, eps=1e-6)
assert_close(normed, modulated_norm(tokens, scale=scale, shift=shift))
for count in (1, 2):
    assert_close(kernels.gated_sum(tokens, gate, *changes[:count]), gated_sum(tokens, gate, *changes[:count]))

fused, norms, angles = torch.randn(2, 5, 3, 3, 8), (torch.randn(8), torch.randn(8)), torch.randn(9, 4)
joint = torch.full((2, 9, 3, 3, 8), torch.nan)
kernels.query_key(fused, joint, first=4, norms=norms, rotation=(angles.cos(), angles.sin()), eps=1e-6)
rotation = Rotation.by(angles[4:])
*parts, value = fused.permute(2, 0, 3, 1, 4)
for number, (part, weight) in enumerate(zip(parts, norms)):
    assert_close(joint[:, 4:, number].transpose(1, 2), rotation(F.rms_norm(part, (8,), weight, 1e-6)))
assert_close(joint[:, 4:, 2].transpose(1, 2), value)
assert joint[:, :4].isnan().all()
kernels.query_key(fused, fused, first=0, norms=norms, rotation=(rotation.cos, rotation.sin), eps=1e-6)
assert_close(fused, joint[:, 4:])
"""


@pytest.mark.slow
def test_kernels_are_the_formulas(interpreted) -> None:
    interpreted(PROGRAM)


@pytest.mark.gpu
@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, position="alibi"), BESIDE])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_inference_equals_training(config: TransformerConfig, dtype: torch.dtype, tolerance: float) -> None:
    with torch.device("cuda"):
        network = LatentTransformer(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        sample = torch.randn(2, 4, 4, 5, 8), torch.randn(2), torch.randn(2, 4, 1, 5, 8), torch.full((2,), 1_540_000_000)
    expected = network(*sample).detach()
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        made = network(*sample)
    assert (made - expected).norm() < tolerance * expected.norm()
