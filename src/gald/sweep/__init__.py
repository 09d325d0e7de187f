"""Ablations: many training runs that are declared, run, resumed and reported as one object."""
