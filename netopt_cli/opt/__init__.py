"""Optimization stages, one file each."""
