"""Report of one run: scores, curves, errors and costs on one page, from what the run has stored."""
