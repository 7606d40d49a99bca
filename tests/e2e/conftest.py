# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios share one lab and run in the order of their file names, from bare nodes to restored guests."""

from __future__ import annotations

import pytest
from cluster import Lab


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The lab that `make lab-up` booted."""
    return Lab()
