"""Maps and pages drawn from forecasts. Importing a module here loads matplotlib and cartopy."""
