"""Wiring: from a configuration or a command line to the objects that do the work."""
