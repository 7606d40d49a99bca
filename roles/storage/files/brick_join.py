#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the brick processes of a filesystem that has been mounted, however late, and see them healed.

A disk that unlocks after glusterd has started leaves its bricks offline. ``volume start force`` starts
them, but it must run only while the filesystem is really there: else the brick would be an empty directory.

A brick without the id of a volume is the blank one of a disk that was replaced. It waits to be reset, and each attempt
to start it would only keep others from asking gluster.

A file that was created a moment before a power cut can be missing on the brick that lost power, and nothing says so to
the self-heal daemon: it waits for ever to heal what is not there. A look at its name makes the file appear, empty, and
the daemon fills it when it is told to look again.

usage: brick-join MOUNTPOINT [SECONDS]
       brick-join --watch MOUNTPOINT

Ends with 0 when every brick below MOUNTPOINT runs or is blank, when there is none, or when nothing is mounted there;
with 1 after SECONDS (600), so that systemd tries again. What heals longer than 15 minutes is left to the daemon.

With --watch it never ends: it does the same each time that no brick runs below MOUNTPOINT and one should. glusterd does
not start a process again that has crashed.
"""

from __future__ import annotations

import errno
import glob
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

# The CLI starts a Python at every call to learn whether geo-replication is there, unless told another interpreter.
ENVIRONMENT = {**os.environ, "PYTHON": "/bin/true", "LC_ALL": "C"}
VOLUME_ID = "trusted.glusterfs.volume-id"
# What the module gluster_volume notes beside a brick while it resets it.
REFILLING, BEGUN = ".personal-cluster-refilling-", "reset begun"
GLUSTERD_INFO = "/var/lib/glusterd/glusterd.info"
CLI = ("gluster", "--mode=script")
CLI_LIMIT = 180
# glusterd starts the bricks itself when all is well; that costs less than asking it.
GRACE = 30.0
POLL = 5.0
WATCH_POLL = 60.0
# What cannot be started, on a disk that fails for example, is not tried all the time.
WATCH_PAUSE = 600.0
HEAL_POLL = 30.0
HEAL_LIMIT = 900.0


class GlusterError(Exception):
    """Gluster could not answer, or refused."""


def say(text: str) -> None:
    """Write a line to the journal."""
    print(text, flush=True)


def gluster(*words: str) -> subprocess.CompletedProcess[str]:
    """Run gluster's command line to its end.

    :raises GlusterError: it is not there, or takes too long.
    """
    try:
        return subprocess.run(
            [*CLI, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CLI_LIMIT,
            env=ENVIRONMENT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GlusterError(f"gluster {' '.join(words)}: no answer ({error})") from error


def ask(*words: str) -> ET.Element:
    """Return gluster's answer.

    :raises GlusterError: no answer, or a refusal.
    """
    done = gluster("--xml", *words)
    try:
        root = ET.fromstring(done.stdout)
    except ET.ParseError as error:
        raise GlusterError(f"gluster {' '.join(words)}: no answer ({error})") from error
    # Its exit code is 0 whatever happened.
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


def wanted_bricks(mountpoint: str) -> dict[str, list[str]]:
    """Return the brick paths of this host below ``mountpoint``, by started volume."""
    with open(GLUSTERD_INFO, encoding="utf-8") as stream:
        uuid = own_uuid(stream.read())
    return bricks_below(ask("volume", "info"), uuid, mountpoint)


def is_blank(path: str) -> bool:
    """Say whether a brick was never part of a volume, or its reset was begun and never came to its end."""
    try:
        os.getxattr(path, VOLUME_ID)
        parent, name = os.path.split(path)
        with open(os.path.join(parent, REFILLING + name), encoding="utf-8") as stream:
            return stream.read().strip() == BEGUN
    except OSError as error:
        return error.filename == path and error.errno in (errno.ENOENT, errno.ENODATA)


def join(mountpoint: str) -> bool:
    """Start the bricks that are missing; return whether all that can run do now."""
    complete = True
    for volume, paths in wanted_bricks(mountpoint).items():
        missing = set(paths) - running_bricks()
        if not missing:
            continue
        if not os.path.ismount(mountpoint):
            return True
        blank = {path for path in missing if is_blank(path)}
        if blank:
            say(f"{', '.join(sorted(blank))} of volume {volume} waits to be reset: there is nothing in it")
        if blank == missing:
            continue
        say(f"starting {', '.join(sorted(missing))} of volume {volume}")
        ask("volume", "start", volume, "force")
        complete = False
    return complete


def settled(mountpoint: str) -> bool:
    """Say whether a brick below ``mountpoint`` runs already, waiting a little for glusterd to start it."""
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        if any(path.startswith(mountpoint.rstrip("/") + "/") for path in running_bricks()):
            return True
        time.sleep(POLL)
    return False


def waiting(info: ET.Element) -> tuple[bool, set[str]]:
    """Return whether anything waits to be healed or is unknown, and the names that wait, from ``heal V info``."""
    bricks = info.findall("healInfo/bricks/brick")
    healed = bool(bricks) and all(brick.findtext("numberOfEntries") == "0" for brick in bricks)
    names = {file.text or "" for brick in bricks for file in brick.iterfind("file")}
    return not healed, {name for name in names if name.startswith("/")}


def mountpoint_of(volume: str, mounts: str) -> str:
    """Return where this host mounts ``volume``, from the text of /proc/self/mounts; empty when nowhere."""
    for line in mounts.splitlines():
        source, place, kind = line.split()[:3]
        if kind == "fuse.glusterfs" and source.rpartition(":")[2].lstrip("/") == volume:
            return place
    return ""


def look_at(volume: str, names: set[str]) -> None:
    """Look at files by name through the mounted volume."""
    with open("/proc/self/mounts", encoding="utf-8") as stream:
        top = mountpoint_of(volume, stream.read())
    for name in sorted(names) if top else ():
        say(f"{volume}: {name} still waits to be healed; looking at it by its name")
        # In a process of its own: a volume that lost its quorum would keep us waiting.
        subprocess.run(
            ["stat", "--", top + name], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
        )


def heal(volume: str) -> None:
    """Tell the self-heal daemon to look again now; by itself it does so every ten minutes.

    :raises GlusterError: no answer, or a refusal.
    """
    # Gluster answers this one in plain text, asked for XML or not.
    done = gluster("volume", "heal", volume)
    if done.returncode:
        raise GlusterError(f"gluster volume heal {volume}: {(done.stderr or done.stdout).strip()}")


def see_healed(volume: str, limit: float = HEAL_LIMIT) -> None:
    """Wait until nothing of ``volume`` waits to be healed; look at what does not move."""
    deadline = time.monotonic() + limit
    before: set[str] = set()
    while time.monotonic() < deadline:
        time.sleep(HEAL_POLL)
        try:
            unhealed, names = waiting(ask("volume", "heal", volume, "info"))
            if not unhealed:
                return
            if stuck := names & before:
                look_at(volume, stuck)
                heal(volume)
            before = names
        except (GlusterError, OSError, subprocess.TimeoutExpired) as error:
            say(str(error))
    say(f"{volume}: not healed yet; gluster volume heal {volume} info tells more")


def is_lost(mountpoint: str) -> bool:
    """Say whether a brick should run below ``mountpoint`` and none does."""
    below = mountpoint.rstrip("/") + "/"
    if not os.path.ismount(mountpoint) or any(path.startswith(below) for path in running_bricks()):
        return False
    return bool(wanted_bricks(mountpoint))


def watch(mountpoint: str) -> None:
    """Start the bricks again each time that their process has died, which glusterd does not."""
    lost = False
    while True:
        time.sleep(WATCH_POLL)
        try:
            before, lost = lost, is_lost(mountpoint)
        except (GlusterError, OSError):
            # glusterd is starting, or was never used.
            lost = False
            continue
        # Twice, since a brick may just be put back or started.
        if before and lost:
            say(f"no brick runs below {mountpoint}")
            main(mountpoint, 0)
            lost = False
            time.sleep(WATCH_PAUSE)


def main(mountpoint: str, limit: float) -> int:
    """Try until ``limit`` seconds are over, then see the volumes healed; return the exit code."""
    if not os.path.ismount(mountpoint) or not os.path.exists(GLUSTERD_INFO):
        say(f"{mountpoint} is not mounted, or glusterd was never used: nothing to start")
        return 0
    settled(mountpoint)
    deadline = time.monotonic() + limit
    while True:
        try:
            if join(mountpoint):
                say(f"the bricks below {mountpoint} run")
                for volume, paths in wanted_bricks(mountpoint).items():
                    if running_bricks().intersection(paths):
                        see_healed(volume)
                return 0
        except (GlusterError, OSError) as error:
            say(str(error))
        if time.monotonic() > deadline:
            return 1
        time.sleep(POLL)


if __name__ == "__main__":
    if sys.argv[1] == "--watch":
        watch(sys.argv[2])
    sys.exit(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 600.0))
