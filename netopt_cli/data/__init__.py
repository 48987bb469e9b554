"""Data sets, one file each: `load(seed, **parameters)` returns a Dataset."""
