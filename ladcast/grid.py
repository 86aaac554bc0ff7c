"""Regular latitude-longitude grids, and regions and places on them. Light: command lines judge places with it."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

if TYPE_CHECKING:
    import xarray as xr

TOLERANCE_DEG = 1e-3
"""Within which coordinates are equal: many files have them rounded to float32 or to three decimals."""
CITIES = Path(__file__).parent / "cities.csv"
"""Places by name, each line as `Place.parse` reads it."""
MOST_POINTS = 43_200
"""Around the globe: half an arc minute is finer than any global analysis."""
Region = tuple[float, float, float, float]
"""West, south, east and north in degrees; one whose west lies east of its east crosses the meridian of 0."""


def parse_region(text: str) -> Region:
    """Reads a region as `west,south,east,north`; raises ValueError that shows the expected form."""
    try:
        west, south, east, north = (float(edge) for edge in text.split(","))
    except ValueError:
        raise _no_region(text) from None
    return require_region((west, south, east, north))


def require_region(region: Region) -> Region:
    """Returns a region; raises ValueError where it is beyond a pole, around the globe twice, or nothing."""
    west, south, east, north = region
    on_globe = -90 <= south < north <= 90 and -360 <= west <= 360 and -360 <= east <= 360
    if not (on_globe and abs(east - west) <= 360):
        raise _no_region(region)
    if west == east:
        raise ValueError(
            f"The region {west:g},{south:g},{east:g},{north:g} is 0 degrees wide: west and east are one meridian. For "
            f"all longitudes write -180,{south:g},180,{north:g}."
        )
    return region


def _no_region(given: object) -> ValueError:
    return ValueError(
        "Expected a region as west,south,east,north in degrees such as -10,35,30,70, from south to north and at most "
        f"360 degrees wide, got '{given}'."
    )


@dataclass(frozen=True)
class Grid:
    """Ascending latitudes and eastward longitudes in degrees (0 <= longitude < 360).

    Raises:
        ValueError: latitudes do not increase within [-90, 90], or longitudes do not circle the globe evenly.
    """

    latitude: tuple[float, ...]
    longitude: tuple[float, ...]

    def __post_init__(self) -> None:
        lat, lon = np.asarray(self.latitude), np.asarray(self.longitude)
        if lat.size < 2 or (np.diff(lat) <= 0).any() or abs(lat).max() > 90 + TOLERANCE_DEG:
            raise ValueError(f"Latitudes must increase strictly within [-90, 90], got {_brief(lat)}.")
        steps = np.diff(lon, append=lon[:1] + 360)
        if lon.size < 2 or abs(steps - 360 / lon.size).max() > TOLERANCE_DEG or not 0 <= lon[0] < 360:
            raise ValueError(
                f"Longitudes must circle the globe evenly eastward from within [0, 360), got {_brief(lon)}."
            )

    @classmethod
    def regular(cls, num_lon: int, num_lat: int) -> Grid:
        """Builds an equiangular grid: with both poles where `num_lat` is odd, else cell-centred."""
        centred = (np.arange(num_lat) + 0.5) * 180 / num_lat - 90
        lat = np.linspace(-90, 90, num_lat) if num_lat % 2 else centred
        return cls(tuple(lat.tolist()), tuple((np.arange(num_lon) * 360 / num_lon).tolist()))

    @classmethod
    def parse(cls, text: str) -> Grid:
        """Builds `regular` from text such as `240x121`; a suffix `-south` drops the row of the south pole."""
        size, _, crop = text.partition("-")
        try:
            num_lon, num_lat = (int(number) for number in size.split("x"))
        except ValueError:
            raise ValueError(f"Expected a grid as LONxLAT such as 240x121 or 240x121-south, got '{text}'.") from None
        if crop not in ("", "south"):
            raise ValueError(f"Expected no suffix or '-south' after the size, got '-{crop}' in '{text}'.")
        if max(num_lon, num_lat) > MOST_POINTS:
            raise ValueError(f"Expected a grid of at most {MOST_POINTS} points around or along, got '{text}'.")
        grid = cls.regular(num_lon, num_lat)
        return grid.without_south_pole() if crop else grid

    @property
    def shape(self) -> tuple[int, int]:
        """Returns (number of latitudes, number of longitudes)."""
        return len(self.latitude), len(self.longitude)

    @property
    def pole_rows(self) -> tuple[bool, bool]:
        """Whether the first row lies on the south pole, and the last on the north pole."""
        return self.latitude[0] < -90 + TOLERANCE_DEG, self.latitude[-1] > 90 - TOLERANCE_DEG

    @cached_property
    def latitude_bounds(self) -> Float[np.ndarray, " edge"]:
        """Returns cell edges in degrees: midpoints between rows, and the poles."""
        lat = np.asarray(self.latitude)
        return np.concatenate([[-90.0], (lat[1:] + lat[:-1]) / 2, [90.0]])

    @cached_property
    def area_weights(self) -> Float[np.ndarray, " lat"]:
        """Returns the cell area of each row, sin(upper bound) - sin(lower bound), scaled to mean 1."""
        area = np.diff(np.sin(np.deg2rad(self.latitude_bounds)))
        weights: npt.NDArray[np.float64] = area / area.mean()
        return weights

    def without_south_pole(self) -> Grid:
        """Drops the row at -90 degrees, so that the number of rows divides by a power of two."""
        if not self.pole_rows[0]:
            raise ValueError(f"The first row is {self.latitude[0]} deg, not the south pole: nothing to drop.")
        return Grid(self.latitude[1:], self.longitude)

    def coarsen(self, factor: int) -> Grid:
        """Returns the grid of `factor` x `factor` patch centres: the token or latent grid."""
        rows, columns = self.shape
        if rows % factor or columns % factor:
            raise ValueError(f"A grid of {rows} x {columns} does not divide into patches of {factor} x {factor}.")
        lat = np.asarray(self.latitude).reshape(-1, factor).mean(1)
        lon = np.asarray(self.longitude).reshape(-1, factor).mean(1)
        return Grid(tuple(lat.tolist()), tuple(lon.tolist()))

    def matches(self, other: Grid) -> bool:
        """Says whether both grids have the same points to within a thousandth of a degree."""
        return self.shape == other.shape and bool(
            np.allclose(self.latitude, other.latitude, atol=TOLERANCE_DEG)
            and np.allclose(self.longitude, other.longitude, atol=TOLERANCE_DEG)
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns plain lists, as written to `grid.yaml`."""
        return {"latitude": list(self.latitude), "longitude": list(self.longitude)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Grid:
        """Builds the grid from `to_dict`'s layout."""
        return cls(tuple(content["latitude"]), tuple(content["longitude"]))

    def __str__(self) -> str:
        rows, columns = self.shape
        return f"{columns} x {rows} (latitude {self.latitude[0]:g}..{self.latitude[-1]:g})"


@dataclass(frozen=True)
class Box(Grid):
    """The points of a region: rows and columns of a grid that do not circle the globe; west of 0 they may be negative.

    Raises:
        ValueError: latitudes or longitudes do not increase, or longitudes are not evenly spaced.
    """

    def __post_init__(self) -> None:
        lat, lon = np.asarray(self.latitude), np.asarray(self.longitude)
        steps = np.diff(lon)
        if lat.size < 2 or (np.diff(lat) <= 0).any() or abs(lat).max() > 90 + TOLERANCE_DEG:
            raise ValueError(f"Latitudes must increase strictly within [-90, 90], got {_brief(lat)}.")
        if lon.size < 2 or steps.min() <= 0 or np.ptp(steps) > 2 * TOLERANCE_DEG or lon[-1] - lon[0] > 360:
            raise ValueError(f"Longitudes must increase evenly, got {_brief(lon)}.")

    @cached_property
    def latitude_bounds(self) -> Float[np.ndarray, " edge"]:
        """Returns cell edges in degrees: midpoints between rows, and half a step beyond the first and the last."""
        lat = np.asarray(self.latitude)
        ends = np.concatenate([[2 * lat[0] - lat[1]], lat, [2 * lat[-1] - lat[-2]]])
        edges: npt.NDArray[np.float64] = np.clip((ends[1:] + ends[:-1]) / 2, -90, 90)
        return edges

    def holds(self, place: Place) -> bool:
        """Says whether a place lies between the first and the last row and column."""
        east = (place.longitude_deg - self.longitude[0]) % 360
        inside = self.latitude[0] <= place.latitude_deg <= self.latitude[-1]
        return inside and east <= self.longitude[-1] - self.longitude[0]

    def within(self, whole: Grid) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Returns which rows and columns of a grid these are; raises ValueError where it lacks one."""
        rows = abs(np.subtract.outer(self.latitude, whole.latitude))
        columns = abs((np.subtract.outer(self.longitude, whole.longitude) + 180) % 360 - 180)
        if max(rows.min(1).max(), columns.min(1).max()) > TOLERANCE_DEG:
            raise ValueError(
                f"Expected the points of a region, {self}, got the grid {whole}, which lacks some of them."
            )
        return rows.argmin(1), columns.argmin(1)

    def __str__(self) -> str:
        rows, columns = self.shape
        (south, *_, north), (west, *_, east) = self.latitude, self.longitude
        return f"{columns} x {rows} (latitude {south:g}..{north:g}, longitude {west:g}..{east:g})"


@dataclass(frozen=True)
class Place:
    """Names a point on the globe; longitudes may count from -180 or from 0 to 360 degrees.

    Raises:
        ValueError: the latitude is outside [-90, 90] or the longitude outside [-180, 360].
    """

    name: str
    latitude_deg: float
    longitude_deg: float

    @classmethod
    def parse(cls, text: str) -> Place:
        """Reads `Name,latitude,longitude`, or the name of a city such as Oslo, in any case.

        Raises:
            ValueError: it is neither; the message shows the expected form and names that are alike.
        """
        if "," not in text:
            return cls._city(text)
        name, *numbers = text.split(",")
        try:
            latitude, longitude = (float(number) for number in numbers)
        except ValueError:
            raise ValueError(
                f"Expected a place as Name,latitude,longitude such as Oslo,59.9,10.8, got '{text}'."
            ) from None
        return cls(name, latitude, longitude)

    @classmethod
    def _city(cls, name: str) -> Place:
        rows = {row.partition(",")[0].casefold(): row for row in CITIES.read_text(encoding="utf-8").splitlines()}
        if found := rows.get(name.strip().casefold()):
            return cls.parse(found)
        alike = [rows[word].partition(",")[0] for word in get_close_matches(name.casefold(), rows)]
        hint = f" Did you mean {' or '.join(alike)}?" if alike else ""
        raise ValueError(
            f"Expected a place as Name,latitude,longitude such as Oslo,59.9,10.8, or one of {len(rows)} cities, got "
            f"'{name}'.{hint}"
        )

    def __post_init__(self) -> None:
        if not -90 <= self.latitude_deg <= 90:
            raise ValueError(f"Latitude of {self.name} must lie within [-90, 90] deg, got {self.latitude_deg}.")
        if not -180 <= self.longitude_deg <= 360:
            raise ValueError(f"Longitude of {self.name} must lie within [-180, 360] deg, got {self.longitude_deg}.")

    def nearest(self, field: xr.Dataset | xr.DataArray) -> tuple[int, int]:
        """Returns the indices (latitude, longitude) of the nearest row and column, also across 0 deg."""
        east = (field["longitude"].values - self.longitude_deg + 180) % 360 - 180
        return int(abs(field["latitude"].values - self.latitude_deg).argmin()), int(abs(east).argmin())


def eastward(longitude_deg: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Returns longitudes counted from 0 to 360 degrees; those that rounding has put just west of 0 are 0."""
    around: npt.NDArray[np.float64] = (longitude_deg.astype(np.float64) + TOLERANCE_DEG) % 360 - TOLERANCE_DEG
    return np.maximum(around, 0.0)


def grid_of(ds: xr.Dataset | xr.DataArray) -> Grid:
    """Returns the grid of a dataset's coordinates, from south to north and eastward."""
    return Grid(tuple(ds["latitude"].values.tolist()), tuple(ds["longitude"].values.tolist()))


def points_of(ds: xr.Dataset | xr.DataArray) -> Grid:
    """Returns the grid of a dataset, or the box that it has of one."""
    if circles_globe(ds["longitude"].values):
        return grid_of(ds)
    return Box(tuple(ds["latitude"].values.tolist()), tuple(ds["longitude"].values.tolist()))


def row_weights(ds: xr.Dataset | xr.DataArray) -> xr.DataArray:
    """Returns the area of each row of a dataset's points, scaled to mean 1: of a globe, a belt, or a single column."""
    latitude = ds["latitude"]
    belt = tuple(latitude.values.tolist())
    # The bounds of a box's rows do not depend on its longitudes; a row alone has none.
    weights = Box(belt, (0.0, 1.0)).area_weights if len(belt) > 1 else np.ones(1)
    return latitude.copy(data=weights).drop_attrs()


def circles_globe(longitude_deg: npt.NDArray[Any]) -> bool:
    """Says whether longitudes, in any order, leave no gap around the globe."""
    around = np.sort(eastward(longitude_deg))
    gaps = np.diff(around, append=around[:1] + 360)
    return bool(gaps.size > 1 and gaps.max() < 1.5 * np.median(gaps))


def _brief(values: npt.NDArray[Any]) -> str:
    return f"{values.size} values {np.array2string(values, threshold=6, precision=3)}"
