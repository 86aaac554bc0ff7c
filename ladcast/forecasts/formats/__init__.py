"""The formats that a forecast is exported to."""
