"""Maps and figures drawn from forecasts. Importing a module here loads matplotlib and cartopy."""
