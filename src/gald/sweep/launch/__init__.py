"""Runs the cells of a sweep, each in a process group of its own."""
