# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan of one volume while it is being made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Call, Change
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    Bricks,
    Cluster,
    Volume,
    Wanted,
    wanted_bricks,
)


@dataclass
class Draft:
    """What is to be done to a volume, what speaks against it, and what the volume becomes.

    :ivar bricks: the declared bricks.
    :ivar have: the volume as it was found, None for one that is not there.
    :ivar after: the volume after the steps so far.
    :ivar steps: the changes in order.
    """

    wanted: Wanted
    state: Cluster
    bricks: Bricks
    have: Optional[Volume]
    after: Optional[Volume]
    steps: list[Change] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, why: str) -> None:
        """Note a reason not to begin."""
        self.refusals.append(f"volume {self.wanted.name}: {why}")

    def step(self, sentence: str, *calls: Call) -> None:
        """Note a change and the calls that make it, in words that follow ``gluster volume``."""
        full = tuple(("volume", *call) if isinstance(call, tuple) else call for call in calls)
        self.steps.append(Change(sentence, full))

    def warn(self, what: str) -> None:
        """Note what an operator should know."""
        self.warnings.append(f"volume {self.wanted.name}: {what}")

    @property
    def options(self) -> Mapping[str, str]:
        """Return the options that the volume has after the steps so far."""
        return self.after.options if self.after else {}


def new_draft(wanted: Wanted, state: Cluster) -> Draft:
    """Return a draft in which nothing is to be done yet."""
    have = state.volumes.get(wanted.name)
    return Draft(wanted, state, wanted_bricks(wanted, state.hosts), have, have)
