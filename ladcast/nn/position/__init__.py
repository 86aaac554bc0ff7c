"""Position encodings: how attention learns where on the globe, and when, its tokens are.

A new encoding is one class in this package and its entry in `POSITION_ENCODINGS`.
"""

from ladcast.nn.position.base import (
    EncodingOptions,
    Heads,
    PositionEncoding,
    Positions,
    Rotation,
    ScoreMod,
    TokenGrid,
    Tokens,
    evenly_spaced_radians,
)
from ladcast.nn.position.relative import (
    AbsoluteScale,
    AddedVectors,
    GeodesicALiBi,
    ProductVectors,
    SignedScale,
    alibi_slopes,
)
from ladcast.nn.position.rotary import ContextAwareRotary, GeoRotary, SeamlessGeoRotary, SphericalRotary, TemporalRotary

__all__ = [
    "POSITION_ENCODINGS",
    "EncodingOptions",
    "GeoRotary",
    "Heads",
    "PositionEncoding",
    "Positions",
    "Rotation",
    "ScoreMod",
    "TokenGrid",
    "Tokens",
    "alibi_slopes",
    "build_position_encoding",
    "evenly_spaced_radians",
]

POSITION_ENCODINGS: dict[str, type[PositionEncoding]] = {
    "none": TemporalRotary,
    "geo": GeoRotary,
    "geo_seamless": SeamlessGeoRotary,
    "spherical": SphericalRotary,
    "alibi": GeodesicALiBi,
    "carope": ContextAwareRotary,
    "relative_1": AbsoluteScale,
    "relative_2": SignedScale,
    "relative_3": ProductVectors,
    "relative_4": AddedVectors,
}


def build_position_encoding(name: str, options: EncodingOptions) -> PositionEncoding:
    """Builds the position encoding of that name; raises ValueError that lists the known ones."""
    if name not in POSITION_ENCODINGS:
        raise ValueError(f"Expected a position encoding out of {sorted(POSITION_ENCODINGS)}, got '{name}'.")
    return POSITION_ENCODINGS[name](options)
