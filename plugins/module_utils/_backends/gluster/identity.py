# SPDX-License-Identifier: GPL-3.0-or-later
"""Who a glusterd is: its UUID and the peers that it knows, in files that it reads when it starts.

A node that was reinstalled gets another UUID, and the others reject it. With its old one and a single peer it is taken
back, and fetches everything else from there. With the UUID alone it is rejected as well, and a probe from any side then
ends in a state that lasts.

A glusterd that has just fetched its volumes does not know where its own bricks really lie, and takes them for new ones:
reset-brick is refused until it was started once more.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import wait
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_volumes
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

INFO = "glusterd.info"
MEMBER = "state=3"
# Beside glusterd.info from before the identity is written until glusterd has read the volumes anew.
RETURNING = "personal-cluster-returning"


@dataclass(frozen=True)
class Identity:
    """What the files say; ``active`` is None where no service is looked after."""

    uuid: str = ""
    op_version: str = ""
    peers: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    active: Optional[bool] = None
    returning: bool = False


def parse_pairs(text: str) -> dict[str, str]:
    """Return the KEY=VALUE lines of one of glusterd's files."""
    return dict(line.strip().split("=", 1) for line in text.splitlines() if "=" in line)


def read_pairs(path: str) -> dict[str, str]:
    """Return the lines of a file, none when it is not there."""
    try:
        with open(path, encoding="utf-8") as stream:
            return parse_pairs(stream.read())
    except FileNotFoundError:
        return {}


def is_uuid(text: str) -> bool:
    """Say whether ``text`` is a UUID as glusterd writes it."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _names(path: str) -> tuple[str, ...]:
    # What begins with a dot was left by a run that was killed while it wrote.
    return tuple(sorted(name for name in os.listdir(path) if name[0] != ".")) if os.path.isdir(path) else ()


class Restored:
    """A glusterd with the identity that its node had before.

    :param wanted: UUID.
    :param peers: UUIDs of peers by their names.
    :param volumes: names of the pool's volumes, for which glusterd waits and is started once more.
    :param service: the unit that is stopped meanwhile; empty when somebody else looks after it.
    """

    def __init__(
        self,
        wanted: str,
        peers: Mapping[str, str],
        op_version: int,
        volumes: Sequence[str],
        service: str,
        cli: Cli,
        run: Run,
    ) -> None:
        self._wanted = wanted
        self._peers = {name: known for name, known in peers.items() if known != wanted}
        self._op_version = op_version
        self._volumes = volumes
        self._workdir = cli.workdir
        self._service = service
        self._cli = cli
        self._run = run

    def read(self) -> Identity:
        """Read glusterd's files; they are there whether it runs or not."""
        info = read_pairs(os.path.join(self._workdir, INFO))
        folder = os.path.join(self._workdir, "peers")
        known = [read_pairs(os.path.join(folder, name)) for name in _names(folder)]
        return Identity(
            uuid=info.get("UUID", ""),
            op_version=info.get("operating-version", ""),
            peers={one.get("hostname1", ""): one.get("uuid", "") for one in known},
            volumes=_names(os.path.join(self._workdir, "vols")),
            active=self._is_active() if self._service else None,
            returning=os.path.exists(os.path.join(self._workdir, RETURNING)),
        )

    def _is_active(self) -> bool:
        return self._run(["systemctl", "is-active", self._service], ok=None).stdout.strip() == "active"

    def blank(self) -> Identity:
        """Return a host without glusterd."""
        return Identity(active=False if self._service else None)

    def plan(self, state: Identity) -> Plan[Identity]:
        """Write the files while glusterd is down; refuse where it belongs to a pool as somebody else."""
        plan = Plan(state)
        plan.refusals += self._refusals(state)
        if state.uuid != self._wanted or not state.peers:
            was = f" (was {state.uuid})" if state.uuid else ""
            sentence = f"give glusterd the identity {self._wanted}{was} and the peers {', '.join(self._peers)}"
            plan.steps.append(Step(sentence, self._write))
            plan.predicted = replace(state, uuid=self._wanted, peers=self._peers)
        if self._service and self._volumes and (plan.steps or state.returning):
            sentence = f"start {self._service}, let it fetch {', '.join(self._volumes)}, and start it once more"
            plan.steps.append(Step(sentence, self._return))
            plan.predicted = replace(plan.predicted, active=True, volumes=tuple(sorted(self._volumes)), returning=False)
        elif self._service and (plan.steps or not state.active):
            plan.steps.append(Step(f"start {self._service}", self._start))
            plan.predicted = replace(plan.predicted, active=True)
        return plan

    def _refusals(self, state: Identity) -> list[str]:
        bad = [text for text in (self._wanted, *self._peers.values()) if not is_uuid(text)]
        found = [f"{text} is no UUID; gluster_peer_info on another node tells it" for text in bad]
        if not self._peers:
            found.append("no other node is named in peers; without one glusterd does not find its pool")
        if state.uuid not in ("", self._wanted) and (state.peers or state.volumes):
            found.append(
                f"the glusterd of this host is {state.uuid} and belongs to a pool: it knows the peers "
                f"{', '.join(state.peers) or 'none'} and the volumes {', '.join(state.volumes) or 'none'}; "
                f"if it was not meant to, stop it and move {self._workdir} away"
            )
        return found

    def _write(self) -> None:
        if self._service:
            self._run(["systemctl", "stop", self._service])
        os.makedirs(os.path.join(self._workdir, "peers"), mode=0o755, exist_ok=True)
        if self._service and self._volumes:
            self._put(RETURNING, "")
        version = str(self._op_version) if self._op_version else self.read().op_version
        rest = f"operating-version={version}\n" if version else ""
        # First: a node that knows the peers under another UUID would be refused by the run that completes this one.
        self._put(INFO, f"UUID={self._wanted}\n{rest}")
        for name, known in self._peers.items():
            self._put(os.path.join("peers", known), f"uuid={known}\n{MEMBER}\nhostname1={name}\n")

    def _put(self, name: str, text: str) -> None:
        with replacing(Path(self._workdir, name), 0o600) as stream:
            stream.write(text.encode())

    def _start(self) -> None:
        self._run(["systemctl", "start", self._service])

    def _return(self) -> None:
        self._start()
        failure = f"the peers {', '.join(self._peers)} did not tell of the volumes {', '.join(self._volumes)}"
        wait(self._has_volumes, self._cli.timeout, failure)
        self._run(["systemctl", "restart", self._service])
        os.unlink(os.path.join(self._workdir, RETURNING))

    def _has_volumes(self) -> bool:
        try:
            return set(self._volumes) <= parse_volumes(self._cli("volume", "info")).keys()
        except ClusterError:
            # It has just been started, and does not answer yet.
            return False

    def view(self, state: Identity) -> dict[str, Any]:
        """Return the UUID and the peers."""
        shown: dict[str, Any] = {"uuid": state.uuid, "peers": dict(sorted(state.peers.items()))}
        return shown if state.active is None else {**shown, "active": state.active}
