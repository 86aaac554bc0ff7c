"""Reading weather: open and check a store, turn it into tensors, normalise, regrid, read an initial condition."""
