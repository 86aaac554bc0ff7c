"""Writes small netCDF files: float32 rounded to the bits that matter, then compressed, atomically."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from ladcast.files import whole_file
from ladcast.verification.climatology import QUANTILE

KEPT_BITS = {
    "geopotential": 14,
    "temperature": 12,
    "2m_temperature": 12,
    "sea_surface_temperature": 12,
    "mean_sea_level_pressure": 14,
    "geopotential_at_surface": 14,
}
"""Mantissa bits that are kept: fields that are small differences from a large mean need more of them."""
OTHER_BITS = 8


def write_compact(ds: xr.Dataset, path: Path) -> None:
    """Writes values rounded to their kept bits: by at most 4 m2 s-2, 0.04 K, 4 Pa, or 0.4 % of others."""
    encoding = {
        name: {
            "dtype": "float32",
            "zlib": True,
            "complevel": 9,
            "shuffle": True,
            "quantize_mode": "BitRound",
            "significant_digits": KEPT_BITS.get(str(name).removesuffix(QUANTILE), OTHER_BITS),
        }
        for name in ds.data_vars
    }
    with whole_file(path) as partial:
        ds.to_netcdf(partial, engine="netcdf4", encoding=encoding)
