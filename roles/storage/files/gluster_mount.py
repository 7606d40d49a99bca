#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mount a Gluster volume that fstab describes, and keep trying while there is no quorum.

After a power cut the nodes come up one after the other; a mount before the second one fails.

usage: gluster-mount MOUNTPOINT [SECONDS]
       gluster-mount --watch MOUNTPOINT

Ends with 0 when the volume is mounted and answers, with 1 after SECONDS (300), so that systemd lets what
waits for it go on, and tries again.

With --watch it never ends: it mounts a volume again whose client has died. What died so is still listed as mounted, and
whoever asks it hears that the endpoint is not connected; what an operator unmounted is not listed, and left alone. A
client that lives and reaches no brick says the same, and is left alone, too: it connects again by itself, and whoever
has files open on it would not reach them through another one.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL.
GET_FLAGS = 0x80086601
SET_FLAGS = 0x40086602
IMMUTABLE = 0x10
MOUNT_LIMIT = 120
# A client that is still looking for its bricks hangs; taken away too early, it would have to begin anew.
ANSWER_LIMIT = 90
LOCKS = "/run"
POLL = 5.0
WATCH_POLL = 10.0


def say(text: str) -> None:
    """Write a line to the journal."""
    print(text, flush=True)


def run(argv: list[str], limit: float) -> str:
    """Run ``argv``; return an empty string, or what went wrong."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"


def is_mounted(mountpoint: str, mounts: str) -> bool:
    """Say whether the text of /proc/self/mounts lists ``mountpoint``; a dead FUSE mount is still listed."""
    return any(line.split()[1] == mountpoint for line in mounts.splitlines() if line)


def mounted(mountpoint: str) -> bool:
    """Say whether something is mounted on ``mountpoint``, dead or alive."""
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        return is_mounted(mountpoint, stream.read())


def answers(mountpoint: str) -> bool:
    """Say whether the filesystem answers. In a process of its own, since a hanging one would hang us too."""
    return run(["stat", "--file-system", mountpoint], ANSWER_LIMIT) == ""


def has_client(mountpoint: str) -> bool:
    """Say whether a client of Gluster serves ``mountpoint``."""
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                words = stream.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if os.path.basename(words[0]) == "glusterfs" and mountpoint in words[1:]:
            return True
    return False


def make_bare(mountpoint: str) -> None:
    """Make the directory, and keep everyone from writing into it while nothing is mounted there."""
    os.makedirs(mountpoint, mode=0o755, exist_ok=True)
    handle = os.open(mountpoint, os.O_RDONLY | os.O_DIRECTORY)
    try:
        flags = struct.unpack("l", fcntl.ioctl(handle, GET_FLAGS, struct.pack("l", 0)))[0]
        fcntl.ioctl(handle, SET_FLAGS, struct.pack("l", flags | IMMUTABLE))
    finally:
        os.close(handle)


@contextmanager
def alone(mountpoint: str) -> Iterator[None]:
    """Keep others away: the unit that mounts and the one that watches may both find that the volume is not there."""
    path = os.path.join(LOCKS, f"personal-cluster-mount{mountpoint.replace('/', '-')}.lock")
    with open(path, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def attempt(mountpoint: str) -> str:
    """Mount once; return an empty string when the volume is there, else why not."""
    with alone(mountpoint):
        if mounted(mountpoint):
            if answers(mountpoint):
                return ""
            alive = has_client(mountpoint)
            say(f"{mountpoint} does not answer; unmounting it")
            # Not one that lives and is in use; and one that hangs would hang a look at it.
            problem = run(["umount", "--no-canonicalize" if alive else "--lazy", mountpoint], MOUNT_LIMIT)
            if alive and problem:
                return f"it does not answer, and is in use: {problem}"
        make_bare(mountpoint)
        problem = run(["mount", mountpoint], MOUNT_LIMIT)
        if not problem and not answers(mountpoint):
            return "mounted, but it does not answer"
        return problem


def main(mountpoint: str, limit: float) -> int:
    """Try until ``limit`` seconds are over; return the exit code."""
    deadline = time.monotonic() + limit
    last = ""
    while True:
        problem = attempt(mountpoint)
        if not problem:
            say(f"{mountpoint} is mounted")
            return 0
        if problem != last:
            say(f"{mountpoint}: {problem}")
            last = problem
        if time.monotonic() > deadline:
            return 1
        time.sleep(POLL)


def is_dead(mountpoint: str) -> bool:
    """Say whether the client of the mount has died."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN and not has_client(mountpoint)
    return False


def watch(mountpoint: str) -> None:
    """Mount again each time that the client dies; a volume that merely hangs is waited for."""
    while True:
        if is_dead(mountpoint):
            say(f"the client of {mountpoint} has died (see its log in /var/log/glusterfs); mounting it again")
            main(mountpoint, float("inf"))
        time.sleep(WATCH_POLL)


if __name__ == "__main__":
    if sys.argv[1] == "--watch":
        watch(sys.argv[2])
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 300.0))
