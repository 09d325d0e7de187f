"""Launcher of a sweep: runs each cell in its own process group."""
