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
    ("name", "params", "before"),
    [
        ("borg_repo", {"repositories": []}, "borg_repo"),
        ("luks_clevis_bind", {"devices": []}, "luks_clevis_bind"),
        ("luks_clevis_info", {"devices": [], "prove": True}, "luks_clevis_bind"),
        ("thin_volume", {"volumes": []}, "thin_volume"),
        ("virt_domain", {"cluster": "test", "domains": []}, "virt_domain"),
        ("virt_domain_info", {}, "virt_migrate"),
        ("virt_migrate", {"guests": []}, "virt_migrate"),
    ],
)
def test_a_run_waits_for_the_one_before(name: str, params: dict[str, Any], before: str) -> None:
    lock = Path(lock_file(before))
    with ThreadPoolExecutor() as pool, open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        run = pool.submit(run_module, name, params, check=True)
        while not waiting(lock):
            assert not run.done(), run.result()
            time.sleep(0.1)
        fcntl.flock(held, fcntl.LOCK_UN)
        assert not run.result(timeout=120).get("failed")
