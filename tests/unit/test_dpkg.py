# SPDX-License-Identifier: GPL-3.0-or-later
"""What dpkg's status file says is installed; the stanzas are Debian 13's, shortened."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends import dpkg
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

STATUS = """Package: bash
Essential: yes
Status: install ok installed
Description: GNU Bourne Again SHell
 Package: is a word of this description
 .
 Status: deinstall ok config-files

Package: nano
Status: deinstall ok config-files
Conffiles:
 /etc/nanorc 1f5e

Package: tang
Status: install ok half-configured
Version: 15-1

Package: jose
Status: hold ok installed
Version: 14-1
"""


def test_only_what_is_wholly_installed_counts(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text(STATUS)
    assert dpkg.missing(["jose", "tang", "bash", "nano", "curl"], str(status)) == ["tang", "nano", "curl"]
    assert dpkg.missing(["bash", "jose"], str(status)) == []


def test_another_distribution_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="must run Debian 12 or 13"):
        dpkg.missing(["bash"], str(tmp_path / "status"))
