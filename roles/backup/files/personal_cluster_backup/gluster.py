# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is frozen or captured while a volume heals or may lack quorum."""

from __future__ import annotations

import os
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence

from .errors import BackupError

COUNTERS = {
    "numberOfEntriesInHealPending": "entries to heal",
    "numberOfEntriesInSplitBrain": "entries in split-brain",
}
POLL_SECONDS = 10.0
COMMAND_SECONDS = 180


def problems(volume: str, text: str) -> list[str]:
    """Return what speaks against a capture, from ``gluster volume heal VOLUME info summary --xml``.

    A brick that does not answer has unknown heals, and unknown is not healed.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return [f"gluster says nothing useful about volume {volume}: {text.strip()[:200] or 'no output'}"]
    if (root.findtext("opRet") or "0") != "0":
        return [f"volume {volume}: {root.findtext('opErrstr') or 'gluster failed without a reason'}"]
    bricks = root.findall("./healInfo/bricks/brick")
    if not bricks:
        return [f"volume {volume}: gluster lists no bricks"]
    found = []
    for brick in bricks:
        name = brick.findtext("name") or "a brick"
        status = brick.findtext("status") or "unknown"
        if status != "Connected":
            found.append(f"volume {volume}: brick {name} is away ({status})")
            continue
        for tag, what in COUNTERS.items():
            count = brick.findtext(tag) or "-"
            if count != "0":
                found.append(f"volume {volume}: brick {name} has {count} {what}")
    return found


def _ask(volume: str) -> str:
    argv = ["gluster", "--mode=script", "volume", "heal", volume, "info", "summary", "--xml"]
    # The command starts a Python at every call, to learn whether geo-replication is there, unless PYTHON names another.
    environ = {**os.environ, "PYTHON": "/bin/true"}
    try:
        done = subprocess.run(
            argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return done.stdout if done.stdout.lstrip().startswith("<") else done.stdout + done.stderr


def gate(volumes: Sequence[str], wait: float, say: Callable[[str], None], ask: Callable[[str], str] = _ask) -> None:
    """Return when no volume heals or lacks a brick.

    :param wait: seconds; writes in flight show as heals for a moment.
    :raises BackupError: after ``wait`` something still speaks against a capture.
    """
    limit = time.monotonic() + wait
    told = ""
    while True:
        found = [sentence for volume in volumes for sentence in problems(volume, ask(volume))]
        if not found:
            return
        if time.monotonic() >= limit:
            raise BackupError("; ".join(found) + "; nothing is captured until that is mended")
        if found[0] != told:
            told = found[0]
            say(f"waiting: {told}")
        time.sleep(min(POLL_SECONDS, max(0.0, limit - time.monotonic())))
