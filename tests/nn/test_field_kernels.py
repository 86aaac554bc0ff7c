"""The kernels of fields: what they compute in Triton's interpreter, and on a GPU within the autoencoder."""

import pytest
import torch

from ladcast.models.autoencoder import Autoencoder, AutoencoderConfig

PROGRAM = """
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from ladcast.models.autoencoder import Downsample, Upsample
from ladcast.nn import field_kernels as kernels
from ladcast.nn.attention import linear_attention
from ladcast.nn.block import ChannelNorm
from ladcast.nn.sphere import Poles, SphericalConv2d, pad_sphere
torch.manual_seed(0)
torch.set_grad_enabled(False)
field, further = torch.randn(2, 6, 3, 8), torch.randn(2, 6, 3, 8)
for rows, width in (((False, False), 1), ((True, False), 2), ((True, True), 1)):
    padded = kernels.pad(field, width, pole_rows=rows, silu=True, one=True, dtype=torch.float32)
    assert_close(padded[:, :6], pad_sphere(F.silu(field), width, pole_rows=rows))
    assert (padded[:, 6] == 1).all() and not padded[:, 7:].any() and padded.shape[1] == kernels.ALIGNMENT
    for kind in ("geometric", "mirrored_outermost"):
        conv = SphericalConv2d(6, 6, kernel_size=2 * width + 1, groups=6, poles=Poles(rows, kind))
        options = {"pole_rows": rows, "mirrored": kind != "geometric"}
        assert_close(kernels.depthwise(field, conv.weight, conv.bias, **options), conv(field))
        gated = kernels.depthwise(field, conv.weight, conv.bias, gated=True, **options)
        assert_close(gated, conv(field, gated=True))

conv = SphericalConv2d(6, 5, poles=Poles((False, True)))
padded = kernels.pad(field, 1, pole_rows=(False, True), silu=False, one=True, dtype=torch.float32)
weights = kernels.aligned_weights(conv.weight, conv.bias, torch.float32)
assert_close(F.conv2d(padded, weights)[:, :5], conv(field), atol=1e-5, rtol=1e-4)

norm = ChannelNorm(6)
torch.nn.init.normal_(norm.weight), torch.nn.init.normal_(norm.bias)
assert_close(kernels.channel_norm(field, norm.weight, norm.bias, eps=norm.eps), norm(field))
assert_close(kernels.channel_norm(field, norm.weight, norm.bias, eps=norm.eps, residual=further), norm(field, further))

groups = torch.randn(2, 3, 7, 6, 16)
apart = groups.permute(3, 0, 1, 2, 4).contiguous().permute(1, 2, 3, 0, 4)  # as a batch of products makes them
heads = [part.flatten(1, 2).permute(0, 2, 3, 1) for part in torch.unflatten(groups, 3, (2, 3)).unbind(4)]
expected = linear_attention(*heads).reshape(2, 32, 3, 7)

fine = torch.randn(2, 6, 4, 8)
for down, up in ((12, 3), (24, 6)):
    smaller, larger = Downsample(6, down, poles=Poles()), Upsample(6, up, poles=Poles())
    assert_close(kernels.shuffle(smaller.conv(fine), fine, up=False), smaller(fine))
    assert_close(kernels.shuffle(larger.conv(fine), fine, up=True), larger(fine))
assert_close(kernels.linear_attention([groups, apart]), torch.cat([expected, expected], 1), atol=1e-5, rtol=1e-4)
"""


@pytest.mark.slow
def test_kernels_are_the_formulas(interpreted) -> None:
    interpreted(PROGRAM)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["geometric", "mirrored_outermost"])
@pytest.mark.parametrize("rows", [(False, False), (True, False)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 5e-3)])
def test_inference_equals_training(kernel: str, rows: tuple[bool, bool], dtype: torch.dtype, tolerance: float) -> None:
    kinds, kernels = ("residual", "residual", "efficientvit"), ((), (), (5,))
    config = AutoencoderConfig(
        3, 2, 4, (12, 24, 96), (1, 1, 1), kinds, kernels, head_dim=32, pole_kernel=kernel, pole_rows=rows
    )
    with torch.device("cuda"), torch.backends.cudnn.flags(allow_tf32=False):
        network, field, static = Autoencoder(config), torch.randn(3, 3, 24, 48), torch.randn(2, 24, 48)
        latent = network.encode(field, static).detach()
        decoded = network.decode(latent).detach()
        with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
            made, made_field = network.encode(field, static), network.decode(latent)
    assert (made - latent).norm() < tolerance * latent.norm()
    assert (made_field - decoded).norm() < tolerance * decoded.norm()
