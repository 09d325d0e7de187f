"""How evaluations are read, compared and reported: behind `gald compare` and `gald table`."""
