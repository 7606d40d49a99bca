# SPDX-License-Identifier: GPL-3.0-or-later
"""Locks between the runs of one computer; the kernel gives them back when their holder ends, however that happens."""

from __future__ import annotations

import fcntl
import os
import time

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

SECONDS = 600.0
POLL_SECONDS = 0.2


def locked_within(handle: int, seconds: float) -> bool:
    """Lock an open file for this process alone; return whether that was possible within ``seconds``."""
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(POLL_SECONDS)


def lock_file(module: str) -> str:
    """Return the path of the lock of a module: for root in a directory where nobody else can have put something."""
    user = os.geteuid()
    return f"/run/personal-cluster-{module}.lock" if user == 0 else f"/run/lock/personal-cluster-{module}.{user}.lock"


def wait_alone(lock: str, seconds: float = SECONDS) -> None:
    """Wait until no other run on this host holds ``lock``, a path; the lock goes with this process.

    A run whose controller was killed goes on here, and must not meet the run that was started to complete it. Where
    tools are run so that they take the lock over, it goes with the last of them when the run itself is killed.

    :raises ClusterError: another run holds it for longer than ``seconds``.
    """
    handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
    if not locked_within(handle, seconds):
        holder = os.pread(handle, 20, 0).decode() or "unknown"
        os.close(handle)
        raise ClusterError(
            f"another run has been at work here for {seconds:.0f} s and holds {lock}; "
            f"wait for it, or end it if it hangs: process {holder}"
        )
    os.set_inheritable(handle, True)
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)
