"""Evaluation of a sweep: arms, effects, costs, and their report."""
