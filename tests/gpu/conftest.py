"""Prints each failure at once: a visit to a GPU may end before pytest prints its summary."""

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print why a test failed."""
    if report.failed:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-3000:]}", flush=True)
