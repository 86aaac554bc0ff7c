"""One module for each command of `ladcast`."""
