"""The spherical convolution: golden numbers, rotation, poles, gradients."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from ladcast.nn.sphere import Poles, SphericalConv2d, pad_sphere

PUBLISHED = Poles(kernel="mirrored_outermost")
ALL_POLES = [
    Poles(),
    PUBLISHED,
    Poles(rows=(True, True)),
    Poles(rows=(False, True)),
]


@pytest.mark.parametrize("size", [3, 5])
def test_reproduces_the_published_convolution(shared: Path, size: int) -> None:
    golden = load_file(shared / "golden" / "components.safetensors")
    field, expected = golden[f"k{size}_input"], golden[f"k{size}_output"]
    conv = SphericalConv2d(field.shape[1], expected.shape[1], kernel_size=size, poles=PUBLISHED)
    conv.load_state_dict({"weight": golden[f"k{size}_weight"], "bias": golden[f"k{size}_bias"]})
    torch.testing.assert_close(conv(field), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    plain = SphericalConv2d(field.shape[1], expected.shape[1], kernel_size=size)
    plain.load_state_dict(conv.state_dict())
    differs = (plain(field) - expected).abs().amax(dim=(0, 1, 3)) > 1e-3
    assert differs.nonzero().flatten().tolist() == [0, field.shape[2] - 1]


@pytest.mark.parametrize("poles", ALL_POLES)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_turns_with_the_field(poles: Poles, size: int, generator: torch.Generator) -> None:
    field = torch.randn(2, 4, 6, 12, generator=generator, dtype=torch.float64)
    conv = SphericalConv2d(4, 4, kernel_size=size, groups=2, poles=poles).double()
    assert conv(field).shape == field.shape
    for shift in (1, 5):
        torch.testing.assert_close(conv(field.roll(shift, -1)), conv(field).roll(shift, -1))


@pytest.mark.parametrize("rows", [(False, False), (True, True), (True, False)])
def test_padding_continues_a_smooth_field_across_the_poles(rows: tuple[bool, bool]) -> None:
    # x, y, z of the unit sphere are smooth across the poles: beyond them, latitude simply runs on.
    count, (south, north) = 10, (0 if on_pole else 0.5 for on_pole in rows)
    step = torch.pi / (count - 1 + south + north)
    latitude = -torch.pi / 2 + step * (torch.arange(-2, count + 2, dtype=torch.float64) + south)
    longitude = torch.arange(-2, 18, dtype=torch.float64) * (2 * torch.pi / 16)
    cos, sin = latitude.cos()[:, None], latitude.sin()[:, None]
    sphere = torch.stack([cos * longitude.cos(), cos * longitude.sin(), sin.expand(-1, 20)])[None]
    padded = pad_sphere(sphere[..., 2:-2, 2:-2], 2, pole_rows=rows)
    torch.testing.assert_close(padded, sphere)


@pytest.mark.slow
@pytest.mark.parametrize("poles", ALL_POLES)
def test_gradients_are_exact_everywhere(poles: Poles, generator: torch.Generator) -> None:
    field = torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    conv = SphericalConv2d(2, 2, kernel_size=5, poles=poles).double()
    assert torch.autograd.gradcheck(
        lambda f, w, b: torch.func.functional_call(conv, {"weight": w, "bias": b}, f),
        (field, conv.weight, conv.bias),
    )


def test_leaves_its_weights_alone() -> None:
    conv = SphericalConv2d(2, 2, poles=PUBLISHED)
    before = conv.weight.clone()
    conv(torch.ones(1, 2, 4, 8)).sum().backward()
    assert torch.equal(conv.weight, before)


def test_equals_a_plain_convolution_away_from_the_edges(generator: torch.Generator) -> None:
    field = torch.randn(1, 3, 8, 8, generator=generator)
    conv = SphericalConv2d(3, 2)
    inner = F.conv2d(field, conv.weight, conv.bias)
    torch.testing.assert_close(conv(field)[..., 1:-1, 1:-1], inner)


def test_refuses_what_has_no_opposite_meridian_or_centre() -> None:
    with pytest.raises(ValueError, match="even number of longitudes"):
        pad_sphere(torch.zeros(1, 1, 4, 7), 1)
    with pytest.raises(ValueError, match="at least 3 rows"):
        pad_sphere(torch.zeros(1, 1, 2, 8), 2, pole_rows=(True, False))
    with pytest.raises(ValueError, match="odd size"):
        SphericalConv2d(1, 1, kernel_size=4)
    with pytest.raises((ValueError, TypeError), match="mirrored_outermost"):
        Poles(kernel="mirror")  # type: ignore[arg-type]
