"""Restartable stages that make the data sets on which ladcast is trained and judged."""
