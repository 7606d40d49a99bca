# SPDX-License-Identifier: GPL-3.0-or-later
"""Molecule's scenario of a layer, on the lab that stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cluster import Lab
from playbook import TOP

pytestmark = pytest.mark.long


def test_molecule_checks_converges_and_repeats_a_layer(lab: Lab) -> None:
    argv = [str(Path(sys.executable).parent / "molecule"), "test", "--scenario-name", "network"]
    done = subprocess.run(
        argv, cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False
    )
    with lab.log.open("a") as stream:
        stream.write(done.stdout + done.stderr)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
