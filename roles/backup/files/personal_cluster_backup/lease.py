# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time: locks that the kernel and the storage release when their holder dies."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import BackupError

POLL_SECONDS = 2.0
BEAT_SECONDS = 10.0


@contextmanager
def held(path: str, wait: float, who: str, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock on ``path`` and give its descriptor.

    The lock belongs to the open file: a process that inherits the descriptor keeps the lock alive, so an orphaned
    borg still counts as the writer.

    :param wait: seconds to wait for the present holder.
    :raises BackupError: somebody else holds it still.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _acquire(descriptor, path, wait, say)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{who} {os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: str, wait: float, say: Callable[[str], None]) -> None:
    limit = time.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "somebody"
        if time.monotonic() >= limit:
            raise BackupError(f"{path} is held by {holder} (node, process) since more than {wait:.0f} s")
        if not told:
            say(f"waiting for {holder} (node, process), which holds {path}")
            told = True
        time.sleep(min(POLL_SECONDS, max(0.0, limit - time.monotonic())))


@contextmanager
def shown(path: str) -> Iterator[None]:
    """Touch the lock's file meanwhile.

    Gluster forgets the locks of a client that it lost, and the client writes on when it is back. So holding a lock does
    not prove that its last holder is dead; its file shows whether it is at work, see :func:`touched`.
    """
    over = threading.Event()

    def show() -> None:
        while not over.wait(BEAT_SECONDS):
            # By its path: the open file may be a broken one by then.
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def touched(descriptor: int, seconds: float) -> bool:
    """Whether somebody else shows within ``seconds`` that the lock is his, see :func:`shown`."""
    os.utime(descriptor)
    before = os.fstat(descriptor).st_mtime_ns
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        time.sleep(1.0)
        if os.fstat(descriptor).st_mtime_ns != before:
            return True
    return False
