"""Physical constants that several packages share, each with its unit and its source."""

GRAVITY = 9.80665
"""Standard gravity in m s-2: the factor between geopotential and geopotential height (WMO)."""
MODEL_EARTH_RADIUS_M = 6_371_229.0
"""The radius of the sphere in the models of ECMWF and NCEP (GRIB shape of the earth 6), for derivatives of fields."""
MEAN_EARTH_RADIUS_KM = 6371.0
"""The mean radius of the earth (IUGG, rounded), by which distances between places are measured."""
KNOT = 0.514444
"""One knot in m s-1, to the six digits that tables of best tracks are converted with (1852 m / 3600 s)."""
ZERO_CELSIUS_K = 273.15
"""The temperature of 0 degrees Celsius."""
EARTH_ROTATION = 7.292e-5
"""The angular velocity of the earth in s-1, of which the Coriolis parameter is twice the part along the vertical."""
