"""Measurements by hand: `make bench` and the commands in docs/."""
