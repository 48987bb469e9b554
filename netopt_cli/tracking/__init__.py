"""Who is told of a run, one file each."""
