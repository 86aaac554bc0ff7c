"""Forecasts in the formats of other programs: netCDF4, GRIB2 and Zarr, one file each, written frame by frame."""
