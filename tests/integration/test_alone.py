# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules that wait for what a killed run still does on this computer."""

from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._lock import lock_file
from harness import needs, run_module

needs()


def waiting(lock: Path) -> list[str]:
    """Return the processes that have the lock's file open, but this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            held = [link.readlink() for link in (process / "fd").iterdir()]
        except OSError:
            continue  # it has ended, or has just closed a file
        if lock in held and process.name != str(os.getpid()):
            found.append(process.name)
    return found


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("borg_repo", {"repositories": []}),
        ("luks_clevis_bind", {"devices": []}),
        ("thin_volume", {"volumes": []}),
        ("virt_domain", {"cluster": "test", "domains": []}),
        ("virt_migrate", {"guests": []}),
    ],
)
def test_a_run_waits_for_the_one_before(name: str, params: dict[str, Any]) -> None:
    lock = Path(lock_file(name))
    with ThreadPoolExecutor() as pool, open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = pool.submit(run_module, name, params, check=True)
        while not waiting(lock):
            assert not run.done(), run.result()
            time.sleep(0.1)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert "actions" in run.result(timeout=120)
