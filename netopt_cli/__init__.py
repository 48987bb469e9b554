"""netopt: architecture optimization of Keras 3 networks, measured on the exported file."""

__version__ = "0.1.0"
