"""Plan of a sweep: its cells, their cost, and the differences that it can detect."""
