"""Reading, comparing and reporting of evaluations, for `gald compare` and `gald table`."""
