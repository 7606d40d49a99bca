#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the brick processes of a filesystem that has been mounted, however late.

A disk that unlocks after glusterd has started leaves its bricks offline. ``volume start force`` starts
them, but it must run only while the filesystem is really there: else the brick would be an empty directory.

usage: brick-join MOUNTPOINT [SECONDS]

Ends with 0 when every brick below MOUNTPOINT runs, when there is none, or when nothing is mounted there;
with 1 after SECONDS (600), so that systemd tries again.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

# The CLI starts a Python at every call to learn whether geo-replication is there, unless told another interpreter.
ENVIRONMENT = {**os.environ, "PYTHON": "/bin/true", "LC_ALL": "C"}
GLUSTERD_INFO = "/var/lib/glusterd/glusterd.info"
CLI = ("gluster", "--mode=script", "--xml")
CLI_LIMIT = 180
# glusterd starts the bricks itself when all is well; that costs less than asking it.
GRACE = 30.0
POLL = 5.0


class GlusterError(Exception):
    """Gluster could not answer, or refused."""


def say(text: str) -> None:
    """Write a line to the journal."""
    print(text, flush=True)


def ask(*words: str) -> ET.Element:
    """Return gluster's answer.

    :raises GlusterError: no answer, or a refusal.
    """
    try:
        done = subprocess.run(
            [*CLI, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLI_LIMIT,
            env=ENVIRONMENT,
            check=False,
        )
        root = ET.fromstring(done.stdout)
    except (OSError, subprocess.TimeoutExpired, ET.ParseError) as error:
        raise GlusterError(f"gluster {' '.join(words)}: no answer ({error})") from error
    if root.findtext("opRet") != "0":
        raise GlusterError(f"gluster {' '.join(words)}: {root.findtext('opErrstr')}")
    return root


def own_uuid(text: str) -> str:
    """Return the UUID in the text of glusterd.info; empty when there is none yet."""
    return next((line.partition("=")[2] for line in text.splitlines() if line.startswith("UUID=")), "")


def bricks_below(info: ET.Element, uuid: str, mountpoint: str) -> dict[str, list[str]]:
    """Return the brick paths of host ``uuid`` below ``mountpoint``, by started volume, from ``volume info``."""
    found: dict[str, list[str]] = {}
    for volume in info.iter("volume"):
        if volume.findtext("status") != "1":
            continue
        for brick in volume.iterfind("bricks/brick"):
            path = (brick.findtext("name") or "").partition(":")[2]
            if brick.findtext("hostUuid") == uuid and path.startswith(mountpoint.rstrip("/") + "/"):
                found.setdefault(volume.findtext("name") or "", []).append(path)
    return found


def running_bricks() -> set[str]:
    """Return the paths of the bricks whose process runs on this host."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            with open(path, "rb") as stream:
                words = stream.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "glusterfsd" in os.path.basename(words[0]) and "--brick-name" in words[:-1]:
            found.add(words[words.index("--brick-name") + 1])
    return found


def join(mountpoint: str) -> bool:
    """Start the bricks that are missing; return whether all of them run now."""
    with open(GLUSTERD_INFO, encoding="utf-8") as stream:
        uuid = own_uuid(stream.read())
    wanted = bricks_below(ask("volume", "info"), uuid, mountpoint)
    complete = True
    for volume, paths in wanted.items():
        missing = set(paths) - running_bricks()
        if not missing:
            continue
        complete = False
        if not os.path.ismount(mountpoint):
            return True
        say(f"starting {', '.join(sorted(missing))} of volume {volume}")
        ask("volume", "start", volume, "force")
    return complete


def settled(mountpoint: str) -> bool:
    """Say whether a brick below ``mountpoint`` runs already, waiting a little for glusterd to start it."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        if any(path.startswith(mountpoint.rstrip("/") + "/") for path in running_bricks()):
            return True
        time.sleep(POLL)
    return False


def main(mountpoint: str, limit: float) -> int:
    """Try until ``limit`` seconds are over; return the exit code."""
    if not os.path.ismount(mountpoint) or not os.path.exists(GLUSTERD_INFO):
        say(f"{mountpoint} is not mounted, or glusterd was never used: nothing to start")
        return 0
    settled(mountpoint)
    deadline = time.monotonic() + limit
    while True:
        try:
            if join(mountpoint):
                say(f"the bricks below {mountpoint} run")
                return 0
        except (GlusterError, OSError) as error:
            say(str(error))
        if time.monotonic() > deadline:
            return 1
        time.sleep(POLL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600.0))
