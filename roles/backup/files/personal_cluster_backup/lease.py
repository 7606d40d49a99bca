# SPDX-License-Identifier: GPL-3.0-or-later
"""One at a time: locks that the kernel and the storage release when their holder dies."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from .errors import BackupError

POLL_SECONDS = 2.0
# Gluster keeps a touch waiting for 20 seconds when another node dies (its ping timeout). That must not look like a lost
# lease: the last touch before it was not long ago.
BEATS = 12


@contextmanager
def held(
    path: str,
    wait: float,
    who: str,
    say: Callable[[str], None],
    vet: Callable[[int, str], None] = lambda _descriptor, _left: None,
) -> Iterator[int]:
    """Hold the lock on ``path`` and give its descriptor.

    The lock belongs to the open file: a process that inherits the descriptor keeps the lock alive, so an orphaned
    borg still counts as the writer. The file names the holder until that releases the lock.

    :param wait: seconds to wait for the present holder.
    :param vet: gets the descriptor and the name of a last holder that did not release the lock, else an empty text;
        when it fails, the file names that holder still.
    :raises BackupError: somebody else holds it still.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    ours = f"{who} {os.getpid()}"
    try:
        _acquire(descriptor, path, wait, say)
        vet(descriptor, _holder(descriptor))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{ours}\n".encode(), 0)
        try:
            yield descriptor
        finally:
            # Storage that forgot the lock may have given it to another holder, or not take this any more.
            with suppress(OSError):
                if _holder(descriptor) == ours:
                    os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode(errors="replace").strip()


def _acquire(descriptor: int, path: str, wait: float, say: Callable[[str], None]) -> None:
    limit = time.monotonic() + wait
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _holder(descriptor) or "somebody"
        if time.monotonic() >= limit:
            raise BackupError(f"{path} is held by {holder} (node, process) since more than {wait:.0f} s")
        if not told:
            say(f"waiting for {holder} (node, process), which holds {path}")
            told = True
        time.sleep(min(POLL_SECONDS, max(0.0, limit - time.monotonic())))


@contextmanager
def shown(path: str, dead_after: float, say: Callable[[str], None]) -> Iterator[None]:
    """Touch the lock's file meanwhile; end this process when that fails for half of ``dead_after`` seconds.

    Gluster forgets the locks of a client that it lost, and the client writes on when it is back. So holding a lock does
    not prove that its last holder is dead; its file shows whether it is at work, see :func:`touched`. Who saw no sign
    of its holder for ``dead_after`` seconds takes the lock over, so that holder must have ended by then.
    """
    over = threading.Event()
    last = time.monotonic()

    def show() -> None:
        nonlocal last
        while not over.wait(dead_after / BEATS):
            begun = time.monotonic()
            # By its path: the open file may be a broken one by then.
            with suppress(OSError):
                os.utime(path)
                # One that comes too late, after the whole process stood still, mends nothing.
                last = begun if begun - last < dead_after / 2 else last

    def watch() -> None:
        while toucher.is_alive():
            toucher.join(dead_after / BEATS)
            if time.monotonic() - last > dead_after / 2:
                _end(path, dead_after, say)
                return

    toucher = threading.Thread(target=show, daemon=True)
    toucher.start()
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        # A touch that hangs is still watched.
        toucher.join()


def _end(path: str, dead_after: float, say: Callable[[str], None]) -> None:
    """Ask this process to end; the kernel ends it where asking does not help."""
    signal.setitimer(signal.ITIMER_REAL, dead_after / 4)
    try:
        say(f"the lease {path} is lost: the storage did not take a sign of life for {dead_after / 2:.0f} s; ending")
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


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
