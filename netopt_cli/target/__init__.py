"""Hardware targets, one file each: `build(**parameters)` returns a Target."""
