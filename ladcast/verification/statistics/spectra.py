"""Power spectra: how the variance of a field is shared among wavenumbers.

Powers add up to the mean square of the field: over wavenumbers on each circle, over degrees on the sphere where the
field has none beyond `max_degree`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ladcast.grid import Box, Grid
from ladcast.verification.case import AreaSums, Case
from ladcast.verification.statistics.base import Axis, Metric, Statistic, mean_of


def zonal_power(case: Case, fields: Float[Tensor, "member level lat lon"]) -> Float[Tensor, "region level wavenumber"]:
    """Returns the power of each zonal wavenumber, averaged over members and latitudes, times the region's weight.

    NaN where the field has masked cells, and in a region or a box that is not made of whole circles.
    """
    power = zonal_powers(fields.double()).mean(0)
    rows, box = case.area.weights.sum(-1), isinstance(case.area.grid, Box)
    sums = torch.einsum("ry,lyk->rlk", rows, power)
    circles = [not box and region.longitude is None and not region.land for region in case.area.regions]
    whole = torch.tensor(circles, device=sums.device)
    return torch.where(whole[:, None, None] & _complete(case), sums, torch.nan)


def zonal_powers(fields: Float[Tensor, "*batch lat lon"]) -> Float[Tensor, "*batch lat wavenumber"]:
    """Returns the squared Fourier coefficients along longitude; over wavenumbers they sum to the mean square."""
    num_lon = fields.shape[-1]
    power: Tensor = (torch.fft.rfft(fields, dim=-1) / num_lon).abs().square()
    # a real field has each wave twice but the mean and, of an even number of columns, the shortest wave
    twice = torch.full((power.shape[-1],), 2.0, dtype=power.dtype, device=power.device)
    twice[0] = 1
    if num_lon % 2 == 0:
        twice[-1] = 1
    return power * twice


def spherical_power(case: Case, fields: Float[Tensor, "member level lat lon"]) -> Float[Tensor, "region level degree"]:
    """Returns the power of each spherical degree, averaged over members, times the globe's weight.

    NaN where the field has masked cells, and in every region but the whole globe.
    """
    power = spherical_powers(fields.double(), case.area.grid).mean(0)
    whole = not isinstance(case.area.grid, Box)
    globe = torch.tensor([whole and region.name == "globe" for region in case.area.regions], device=power.device)
    sums = case.area.total[..., None] * power
    return torch.where(globe[:, None, None] & _complete(case), sums, torch.nan)


def spherical_powers(fields: Float[Tensor, "*batch lat lon"], grid: Grid) -> Float[Tensor, "*batch degree"]:
    """Returns the power of each degree of spherical harmonics, sum_m |a_lm|^2, up to `max_degree`.

    Coefficients are a least-squares fit on each zonal wavenumber: exact for a field without degrees beyond
    `max_degree(grid)`, on equiangular and Gaussian rows, with or without poles. Then powers add up to the mean square;
    of other fields what lies beyond is counted in part.
    """
    waves = torch.fft.rfft(fields, dim=-1) / fields.shape[-1]
    fit = _analysis(grid).to(waves.device)
    orders = fit.shape[0]
    coefficients = torch.einsum("mly,...ym->...lm", fit.to(waves.dtype), waves[..., :orders])
    twice = torch.full((orders,), 2.0, dtype=torch.float64, device=waves.device)
    twice[0] = 1
    return (coefficients.abs().square() * twice).sum(-1)


def max_degree(grid: Grid) -> int:
    """Returns the largest degree that the rows and columns of the grid resolve."""
    rows, columns = grid.shape
    return min(rows - 1, (columns - 1) // 2)


@lru_cache(maxsize=4)
def _analysis(grid: Grid) -> Float[Tensor, "order degree lat"]:
    """Returns for each order the matrix from Fourier coefficients on the rows to those of the harmonics."""
    degree = max_degree(grid)
    sine = np.sin(np.deg2rad(grid.latitude))
    root = np.sqrt(grid.area_weights)
    fit = np.zeros((degree + 1, degree + 1, len(sine)))
    for order in range(degree + 1):
        basis = legendre(order, degree, sine)
        # rows are weighed by their area, in which the harmonics are orthogonal
        fit[order, order:] = np.linalg.pinv(root[:, None] * basis) * root
    return torch.from_numpy(fit)


def legendre(order: int, degree: int, sine: Float[np.ndarray, " lat"]) -> Float[np.ndarray, "lat degree"]:
    """Returns the associated Legendre functions of one order, degrees `order` to `degree`, with mean square 1.

    The mean is over the sphere, of P_lm(sin lat) exp(i m lon). Recurrence of Holmes and Featherstone (2002),
    doi:10.1007/s00190-002-0216-2.
    """
    cosine = np.sqrt((1 - sine) * (1 + sine))
    steps = np.arange(1, order + 1)
    functions = np.zeros((degree - order + 1, len(sine)))
    functions[0] = np.prod(np.sqrt((2 * steps + 1) / (2 * steps))) * cosine**order
    for place, n in enumerate(range(order + 1, degree + 1), start=1):
        ahead = np.sqrt((2 * n + 1) * (2 * n - 1) / ((n - order) * (n + order)))
        functions[place] = ahead * sine * functions[place - 1]
        if place > 1:
            back = (2 * n + 1) * (n + order - 1) * (n - order - 1) / ((2 * n - 3) * (n - order) * (n + order))
            functions[place] -= np.sqrt(back) * functions[place - 2]
    return functions.T


def _complete(case: Case) -> Tensor:
    """Says which levels have no masked cell: [level, 1]."""
    return case.area.present.flatten(1).all(1)[:, None]


SPECTRA_OF: dict[str, tuple[str, Callable[[Case], Tensor]]] = {
    "members": ("the members", lambda case: case.members),
    "mean": ("the ensemble mean", lambda case: (case.truth + case.moments.error)[None]),
    "truth": ("the truth", lambda case: case.truth[None]),
}


def _family(kind: str, power: Callable[[Case, Tensor], AreaSums], axis: Axis) -> Iterator[Statistic | Metric]:
    """Yields the spectra of the members (averaged), of the ensemble mean and of the truth."""
    for source, (long_name, fields) in SPECTRA_OF.items():
        name = f"{kind}_power_{source}"

        def reduce(case: Case, fields: Callable[[Case], Tensor] = fields) -> AreaSums:
            return power(case, fields(case))

        yield Statistic(name, reduce, axes=(axis,), group=f"{kind}_spectra", additive=True)
        yield Metric(name, f"{kind} power spectrum of {long_name}", (name,), mean_of(name), "field squared", (axis,))


SPECTRA = (
    *_family("zonal", zonal_power, Axis("wavenumber", "zonal wavenumber")),
    *_family("spherical", spherical_power, Axis("degree", "spherical degree")),
)
