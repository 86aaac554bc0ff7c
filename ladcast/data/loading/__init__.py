"""The training side of the data: the order of samples, batches made ahead, and states read straight from chunks."""
