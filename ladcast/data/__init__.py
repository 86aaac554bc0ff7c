"""Reading weather: open and check a store, turn it into tensors, normalise, regrid, pick a start state."""
