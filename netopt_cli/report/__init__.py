"""The report of a run, of its seeds or of a sweep: one page that needs nothing else."""
