"""GALD: global aggregation then local distribution, and every other context module, to ablate."""

__version__ = "0.1.0"
