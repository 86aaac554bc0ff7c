"""Imports the libraries that only some sources need, with an error that says how to install them."""

from __future__ import annotations

import importlib
from typing import Any

EXTRA = {
    "cdsapi": "data",
    "cfgrib": "grib",
    "eccodes": "grib",
    "ecmwf.opendata": "grib",
    "obstore": "data",
    "obstore.store": "data",
}


def need(module: str, purpose: str) -> Any:
    """Returns the module; raises ImportError that names the extra of ladcast that brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{purpose} needs '{module}', which is not installed ({error}). "
            f"Install it with: pip install 'ladcast[{EXTRA[module]}]'."
        ) from error
