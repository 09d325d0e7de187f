"""Figures: panels of a run, and inputs and outputs of the context slots."""
