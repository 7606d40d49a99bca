# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios share one lab and run in the order of their file names, from bare nodes to restored guests."""

from __future__ import annotations

import pytest
from cluster import NODES, Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab that `make lab-up` booted."""
    return Lab()


@pytest.fixture(scope="module")
def bare(lab: Lab) -> None:
    """The scenarios of this file begin with nodes that no playbook has touched."""
    used = [name for name in NODES if lab.ok(name, "test -e /etc/ssl/personal-cluster")]
    assert not used, f"{', '.join(used)} are not bare any more; 'make lab-destroy' and begin anew"


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Tell at once how long a scenario took: a run that is stopped prints no list of durations."""
    if report.when != "call":
        return None
    return report.outcome, report.outcome[0].upper(), f"{report.outcome.upper()} after {report.duration:.0f} s"
