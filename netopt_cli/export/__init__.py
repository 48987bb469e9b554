"""Turning a network into a file."""
