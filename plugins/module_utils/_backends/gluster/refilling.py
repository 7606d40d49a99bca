# SPDX-License-Identifier: GPL-3.0-or-later
"""A brick that was put back empty, and the files that clients hold open.

A client that had a file open on the brick before opens it again when the brick is back, fails because there is nothing
on it yet, and does not try once more (gluster issue 3183). What it writes to that file goes to the other bricks alone,
and healing never ends. When all names are on the brick, a new start of its process has every client try again.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Online, wait
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import (
    PAUSE,
    Healers,
    end,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Brick,
    Volume,
    brick_keys,
    brick_sets,
    note_of,
)
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError


def _mark(brick: Brick) -> Path:
    return Path(note_of(brick.path))


@dataclass(frozen=True)
class Noted:
    """Note beside the brick how far it was put back, for the run that completes one that died."""

    brick: Brick
    text: str

    def act(self, _cli: Cli) -> None:
        """Write the note."""
        with replacing(_mark(self.brick), 0o600) as stream:
            stream.write(f"{self.text}\n".encode())


@dataclass(frozen=True)
class Reopened:
    """Wait until every name that waits to be healed is on the brick, and start its process anew.

    :param members: the bricks of its set, itself too: those of other sets have other names.
    """

    volume: str
    brick: Brick
    members: frozenset[str]
    timeout: float

    def act(self, cli: Cli) -> None:
        """Do so, and take the note away."""
        failure = f"run again to wait on: brick {self.brick} of volume {self.volume} had not all names of the others"
        healers = Healers(self.brick.owner)
        wait(lambda: self.has_names(cli, healers), self.timeout, failure, PAUSE)
        pid = parse_pid(cli("volume", "status", self.volume), self.brick)
        if pid:
            end(pid)
        cli("volume", "start", self.volume, "force")
        Online(self.volume, self.brick, self.timeout).act(cli)
        wait(lambda: healers.run(cli), self.timeout, "a self-heal daemon (glustershd.log) did not start", PAUSE)
        _mark(self.brick).unlink()

    def has_names(self, cli: Cli, healers: Healers) -> bool:
        """Say whether it is time, and have the rest healed if it is not."""
        try:
            if not lacks_names(cli("volume", "heal", self.volume, "info"), self.brick.path, self.members):
                return True
        except ClusterError:
            # With very much to heal the answer can take longer than anybody waits for it.
            return False
        # The daemon may have come to a directory before its parent was there, and looks again in ten minutes.
        if healers.run(cli):
            cli.heal(self.volume)
        return False


def lacks_names(info: ET.Element, path: str, members: Collection[str]) -> bool:
    """Say whether anything that ``members`` list in ``heal info`` is not a file on the brick at ``path`` yet.

    A directory that waits may have names that the brick lacks; a brick that gives no number may have any.
    """
    bricks = [brick for brick in info.iterfind("healInfo/bricks/brick") if brick.findtext("name") in members]
    if len(bricks) < len(members) or any(not (brick.findtext("numberOfEntries") or "").isdigit() for brick in bricks):
        return True
    return any(not _is_file(path, file.get("gfid") or "") for brick in bricks for file in brick.iterfind("file"))


def _is_file(path: str, gfid: str) -> bool:
    # Gluster keeps a hard link of each file there, and for each directory a symbolic link that leads to it.
    link = os.path.join(path, ".glusterfs", gfid[:2], gfid[2:4], gfid)
    return bool(gfid) and os.path.lexists(link) and not os.path.isdir(link)


def parse_pid(status: ET.Element, brick: Brick) -> int:
    """Return the process of a brick from ``volume status``, 0 when it has none."""
    for node in status.iter("node"):
        if (node.findtext("peerid"), node.findtext("path")) == brick.key and node.findtext("status") == "1":
            return int(node.findtext("pid") or 0)
    return 0


def plan_refill(draft: Draft, have: Volume, brick: Brick) -> None:
    """Start a brick anew that was put back empty, by this run or by one that died before it came to that."""
    sentence = (
        f"start brick {brick} of volume {have.name} anew when it has all names, so that open files are opened on it"
    )
    sets = brick_sets(have.bricks, have.layout.size)
    members = next(found for found in sets if brick.key in brick_keys(found))
    draft.step(sentence, Reopened(have.name, brick, frozenset(map(str, members)), draft.wanted.timeout))


def noted(draft: Draft, have: Volume, text: str) -> list[Brick]:
    """Return the bricks of this host of which a run that died has left this note."""
    directories = draft.state.directories
    return [
        brick
        for brick in have.bricks
        if draft.state.is_local(brick) and brick.path in directories and directories[brick.path].refilling == text
    ]
