# SPDX-License-Identifier: GPL-3.0-or-later
"""site.yml dies in the middle of each layer, and the next run completes it: from bare nodes to a converged cluster."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from cluster import NODES, Lab, changed
from playbook import TOP

pytestmark = pytest.mark.long

# Killed this many seconds after the named task began: while it works, not between two tasks.
MOMENTS = {
    "base": ("Write names, clock settings and certificates", 3),
    "network": ("Build the bridges", 8),
    "encryption": ("Encrypt, bind and open the data disks", 20),
    "storage": ("Make and mount the filesystems of this node", 10),
    "hypervisor": ("Run the guests that belong here", 4),
    "backup": ("Keep the repository", 5),
    "telemetry": ("Write configuration, rules, collector and units", 3),
}


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``: ansible-core gives its workers sessions of their own, and they outlive it."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    parents = [(int(child), int(parent)) for child, parent in (line.split() for line in table.stdout.splitlines())]
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents if parent in new]
        found += new
    return found


def kill(pid: int) -> None:
    """SIGKILL a run and everything below it."""
    for one in [pid, *descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def run_and_kill(playbook: str, options: list[str], task: str, delay: float) -> bool:
    """Run a playbook and SIGKILL the whole run ``delay`` seconds into a task; False when it ended before."""
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", f"playbooks/{playbook}"]
    process = subprocess.Popen(
        [*argv, *options],
        cwd=TOP,
        env={**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(1500, kill, (process.pid,))
    late.start()
    assert process.stdout is not None
    killed = False
    for line in process.stdout:
        if line.startswith("TASK") and task in line:
            time.sleep(delay)
            kill(process.pid)
            killed = True
    process.wait()
    late.cancel()
    return killed


@pytest.mark.parametrize("layer", MOMENTS)
def test_a_layer_that_was_killed_converges_on_the_next_run(lab: Lab, layer: str) -> None:
    if layer == "base":
        assert not [name for name in NODES if lab.ok(name, "test -e /etc/ssl/personal-cluster")], (
            "begin with bare nodes"
        )
    task, delay = MOMENTS[layer]
    assert run_and_kill("site.yml", ["--tags", layer], task, delay), f"{layer} never came to the task {task!r}"
    assert lab.playbook("site.yml", "--tags", layer).rc == 0
    again = lab.playbook("site.yml", "--tags", layer)
    assert again.rc == 0 and changed(again) == {}
