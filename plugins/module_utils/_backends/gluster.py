# SPDX-License-Identifier: GPL-3.0-or-later
"""GlusterFS: the pool of peers and its volumes, read from the CLI's XML.

The CLI's exit code says nothing in XML mode: ``opRet`` does. What is no XML is a usage error, a
time limit, or a daemon that does not answer.
"""

from __future__ import annotations

import os
import re
import socket
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

CLI_LIMIT = 300.0
# At every call the CLI starts a Python to learn whether geo-replication is there: four of the five seconds that a call
# takes on a slow machine. The wrapper that starts it lets PYTHON name another interpreter.
WITHOUT_GEOREPLICATION = {"PYTHON": "/bin/true"}
POLL = 1.0
NO_DAEMON = "Connection failed"
BUSY = ("Another transaction", "Locking failed", "Locking volume", "lock timed out")
MEMBER = "3"
STATUS_NAMES = {"0": "created", "1": "started", "2": "stopped"}
VOLUME_ID = "trusted.glusterfs.volume-id"
WORDS_ON = ("on", "yes", "true", "enable", "enabled")
WORDS_OFF = ("off", "no", "false", "disable", "disabled")
UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
SIZE = re.compile(r"(\d+)\s*([kmgt]?b)?$")
TLS_OPTIONS = ("client.ssl", "server.ssl")
SHARD_OPTIONS = ("features.shard", "features.shard-block-size")
DEFAULTS = {"client.ssl": "off", "server.ssl": "off", "features.shard": "off", "features.shard-block-size": "64MB"}


class Cli:
    """The gluster command, talking to one glusterd.

    :param workdir: glusterd's working directory; says whether glusterd was ever used here.
    :param sock: glusterd's socket; empty for the usual one.
    :param timeout: seconds for which a busy cluster (another transaction holds the lock) is asked again.
    """

    def __init__(self, run: Run, workdir: str, sock: str, timeout: float) -> None:
        self._run = run
        self.workdir = workdir
        self._words = ["gluster", *([f"--glusterd-sock={sock}"] if sock else []), "--mode=script", "--xml"]
        self.timeout = timeout

    def __call__(self, *words: str) -> ET.Element:
        """Return the root of the answer to ``words``.

        :raises NotYet: glusterd is not there and never was used.
        :raises ClusterError: what gluster said.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            root = self._ask(words)
            if root.findtext("opRet") in (None, "0"):
                return root
            said = " ".join((root.findtext("opErrstr") or root.findtext("output") or "no reason given").split())
            if not any(word in said for word in BUSY) or time.monotonic() > deadline:
                raise ClusterError(f"gluster {' '.join(words[:3])}: {said}")
            time.sleep(POLL)

    def _ask(self, words: Sequence[str]) -> ET.Element:
        try:
            done = self._run([*self._words, *words], timeout=CLI_LIMIT, ok=None, env=WITHOUT_GEOREPLICATION)
        except NotYet as error:
            raise self._absent(str(error)) from error
        try:
            return ET.fromstring(done.stdout)
        except ET.ParseError as error:
            said = " ".join((done.stdout + " " + done.stderr).split())[:500]
            if NO_DAEMON in said:
                raise self._absent("glusterd does not answer") from error
            raise ClusterError(f"gluster {' '.join(words[:3])}: {said or 'no answer'}") from error

    def _absent(self, what: str) -> ClusterError:
        if os.path.exists(os.path.join(self.workdir, "glusterd.info")):
            return ClusterError(
                f"{what}, though it was used on this host before; see systemctl status glusterd.service"
            )
        return NotYet(f"{what} and was never used on this host")


@dataclass(frozen=True)
class Peer:
    """One member of the trusted pool, as the local glusterd sees it."""

    uuid: str
    names: tuple[str, ...]
    local: bool = False
    connected: bool = True
    member: bool = True
    state: str = "Peer in Cluster"


def parse_pool(root: ET.Element) -> tuple[Peer, ...]:
    """Return the peers of ``pool list``, the local one included."""
    return tuple(
        Peer(
            uuid=peer.findtext("uuid") or "",
            names=tuple(dict.fromkeys(name.text or "" for name in peer.iter("hostname"))),
            local=peer.find("state") is None,
            connected=peer.findtext("connected") == "1",
            member=peer.findtext("state", MEMBER) == MEMBER,
            state=peer.findtext("stateStr", "Peer in Cluster"),
        )
        for peer in root.iter("peer")
    )


def addresses_of(name: str) -> frozenset[str]:
    """Return the addresses that ``name`` resolves to; none when it does not."""
    try:
        return frozenset(str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM))
    except OSError:
        return frozenset()


def is_this_host(name: str) -> bool:
    """Say whether ``name`` is this host: its own name, or an address that a socket can be bound to."""
    if name == socket.gethostname():
        return True
    for address in addresses_of(name):
        try:
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.bind((address, 0))
                return True
        except OSError:
            continue
    return False


def match_hosts(names: Iterable[str], peers: Sequence[Peer], is_local: Callable[[str], bool]) -> dict[str, str]:
    """Return the peer UUID of each name that belongs to the pool: by name, else by address, else as this host."""
    by_name = {name: peer.uuid for peer in peers if not peer.local for name in peer.names}
    local = next((peer.uuid for peer in peers if peer.local), "")
    found = {name: by_name[name] for name in names if name in by_name}
    for name in set(names) - set(found):
        if local and is_local(name):
            found[name] = local
            continue
        mine = addresses_of(name)
        same = [uuid for other, uuid in by_name.items() if mine & addresses_of(other)]
        if same:
            found[name] = same[0]
    return found


@dataclass(frozen=True)
class Pool:
    """The peers, and which of the wanted names they answer to."""

    peers: tuple[Peer, ...]
    hosts: Mapping[str, str]

    def peer(self, name: str) -> Optional[Peer]:
        """Return the peer that ``name`` means."""
        return next((peer for peer in self.peers if peer.uuid == self.hosts.get(name)), None)


class Peers:
    """The trusted pool: every wanted host is a member."""

    def __init__(self, names: Sequence[str], cli: Cli, local_name: str) -> None:
        self._names = names
        self._cli = cli
        self._is_local = (lambda name: name == local_name) if local_name else is_this_host

    def read(self) -> Pool:
        """Ask the local glusterd for its pool."""
        peers = parse_pool(self._cli("pool", "list"))
        return Pool(peers, match_hosts(self._names, peers, self._is_local))

    def blank(self) -> Pool:
        """Return the pool of a glusterd that knows only itself."""
        alone = (Peer("", ("localhost",), local=True),)
        return Pool(alone, {name: "" for name in self._names if self._is_local(name)})

    def plan(self, state: Pool) -> Plan[Pool]:
        """Probe who is missing; wait for who is on the way; refuse who was rejected."""
        plan = Plan(state)
        joined = list(state.peers)
        for name in self._names:
            peer = state.peer(name)
            if peer is None:
                plan.steps.append(Step(f"add {name} to the pool", partial(self._probe, name)))
                joined.append(Peer(name, (name,)))
            elif "Rejected" in peer.state:
                plan.refusals.append(
                    f"{name} is in the pool as '{peer.state}': its volume definitions differ from the others'; "
                    f"stop glusterd there, move its {self._cli.workdir}/vols away, start it, run again"
                )
            elif not peer.member:
                plan.steps.append(Step(f"wait for {name} to join the pool", partial(self._wait, name)))
            elif not peer.connected:
                plan.warnings.append(f"{name} is in the pool but not connected")
        plan.warnings += self._strangers(state)
        plan.predicted = Pool(
            tuple(joined), {**state.hosts, **{name: name for name in set(self._names) - set(state.hosts)}}
        )
        return plan

    def _strangers(self, state: Pool) -> list[str]:
        known = set(state.hosts.values())
        return [
            f"{peer.names[0]} is in the pool but not declared; it was left there"
            for peer in state.peers
            if not peer.local and peer.uuid not in known
        ]

    def _probe(self, name: str) -> None:
        self._cli("peer", "probe", name)
        self._wait(name)

    def _wait(self, name: str) -> None:
        deadline = time.monotonic() + self._cli.timeout
        while True:
            peer = self.read().peer(name)
            if peer is not None and peer.member and peer.connected:
                return
            if time.monotonic() > deadline:
                seen = peer.state if peer else "unknown"
                raise ClusterError(
                    f"{name} did not become a connected member of the pool within {self._cli.timeout:.0f} s ({seen}); "
                    f"see /var/log/glusterfs/glusterd.log on {name}: certificate, name resolution, port 24007"
                )
            time.sleep(POLL)

    def view(self, state: Pool) -> dict[str, Any]:
        """Return the members by name."""
        shown = {}
        for peer in state.peers:
            name = next((name for name in self._names if state.hosts.get(name) == peer.uuid), peer.names[0])
            shown[name] = {"member": peer.member, "connected": peer.connected}
        return {"peers": shown}


@dataclass(frozen=True)
class Layout:
    """How bricks form sets; ``replica`` is 1 for a dispersed volume."""

    replica: int = 3
    arbiter: int = 0
    disperse: int = 0
    redundancy: int = 0

    @property
    def size(self) -> int:
        """Return the number of bricks of one set."""
        return self.disperse or self.replica

    def words(self) -> list[str]:
        """Return what the CLI wants to hear."""
        if self.disperse:
            return ["disperse", str(self.disperse), "redundancy", str(self.redundancy)]
        if self.replica == 1:
            return []
        return ["replica", str(self.replica), *(["arbiter", str(self.arbiter)] if self.arbiter else [])]


@dataclass(frozen=True)
class Brick:
    """A directory on a host; ``owner`` is the peer's UUID, or the host's name while it is unknown."""

    host: str
    path: str
    owner: str

    @property
    def key(self) -> tuple[str, str]:
        """Return what identifies the brick, whatever name its host goes by."""
        return self.owner, self.path

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


Bricks = tuple[Brick, ...]


@dataclass(frozen=True)
class Volume:
    """A volume as glusterd knows it."""

    name: str
    status: str
    layout: Layout
    bricks: Bricks
    options: Mapping[str, str]
    snapshots: int = 0


@dataclass(frozen=True)
class Wanted:
    """A volume as the operator declares it; ``bricks`` are (host, path) in the order of the sets."""

    name: str
    state: str
    layout: Layout
    bricks: tuple[tuple[str, str], ...]
    group: str
    options: Mapping[str, str]
    allow: frozenset[str]


@dataclass(frozen=True)
class Cluster:
    """Everything that one look at the pool tells.

    ``online`` are the keys of bricks whose process runs; ``tasks`` the names of active tasks;
    ``unhealed`` counts entries, and is None where that is not known; ``groups`` are the option groups of
    this release, None for one that has no file; ``marked`` are local paths that carry a volume's id.
    """

    peers: tuple[Peer, ...] = ()
    hosts: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[str, Volume] = field(default_factory=dict)
    online: frozenset[tuple[str, str]] = frozenset()
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unhealed: Mapping[str, Optional[int]] = field(default_factory=dict)
    groups: Mapping[str, Optional[Mapping[str, str]]] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()
    fresh: bool = False

    @property
    def formed(self) -> bool:
        """Say whether there is a pool: a glusterd that is alone and has no volume is not in one yet."""
        return not self.fresh and (len(self.peers) > 1 or bool(self.volumes))


def _count(element: ET.Element, tag: str) -> int:
    return int(element.findtext(tag) or 0)


def _parse_brick(element: ET.Element) -> Brick:
    host, path = (element.findtext("name") or "").split(":", 1)
    return Brick(host, path, element.findtext("hostUuid") or host)


def _parse_volume(element: ET.Element) -> Volume:
    disperse = _count(element, "disperseCount")
    return Volume(
        name=element.findtext("name") or "",
        status=STATUS_NAMES.get(element.findtext("status") or "", "unknown"),
        layout=Layout(
            replica=_count(element, "replicaCount"),
            arbiter=_count(element, "arbiterCount"),
            disperse=disperse,
            redundancy=_count(element, "redundancyCount") if disperse else 0,
        ),
        bricks=tuple(_parse_brick(brick) for brick in element.iterfind("bricks/brick")),
        options={
            option.findtext("name") or "": option.findtext("value") or ""
            for option in element.iterfind("options/option")
        },
        snapshots=_count(element, "snapshotCount"),
    )


def parse_volumes(root: ET.Element) -> dict[str, Volume]:
    """Return the volumes of ``volume info``."""
    volumes = (_parse_volume(element) for element in root.iter("volume"))
    return {volume.name: volume for volume in volumes}


def parse_online(root: ET.Element) -> frozenset[tuple[str, str]]:
    """Return the keys of the bricks that ``volume status`` says are running; an unreachable host lists none."""
    return frozenset(
        (node.findtext("peerid") or "", node.findtext("path") or "")
        for node in root.iter("node")
        if node.findtext("status") == "1" and (node.findtext("path") or "").startswith("/")
    )


def parse_tasks(root: ET.Element) -> dict[str, tuple[str, ...]]:
    """Return the kinds of the tasks in progress, by volume, of ``volume status``."""
    found = {}
    for volume in root.iter("volume"):
        active = tuple(
            task.findtext("type") or "task"
            for task in volume.iterfind("tasks/task")
            if task.findtext("statusStr") == "in progress"
        )
        if active:
            found[volume.findtext("volName") or ""] = active
    return found


def parse_heal(root: ET.Element) -> Optional[int]:
    """Return the number of entries that ``heal info summary`` counts, None when a brick gives no number."""
    total = 0
    for brick in root.iterfind("healInfo/bricks/brick"):
        count = brick.findtext("totalNumberOfEntries") or ""
        if not count.isdigit():
            return None
        total += int(count)
    return total


def parse_group(text: str) -> dict[str, str]:
    """Return the options of a group file."""
    return dict(line.strip().split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def normal(value: str) -> str:
    """Return one spelling for what gluster takes as the same: booleans, and sizes in any unit."""
    word = value.strip().lower()
    if word in WORDS_ON:
        return "on"
    if word in WORDS_OFF:
        return "off"
    size = SIZE.match(word)
    return str(int(size[1]) * UNITS[size[2] or ""]) if size else value.strip()


def option_text(value: Any) -> str:
    """Return an option's value as gluster writes it; YAML's booleans become on and off."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)


def _wanted(item: Mapping[str, Any]) -> Wanted:
    disperse = item["disperse"] or 0
    redundancy = item["redundancy"] or 0
    replica = 1 if disperse else item["replica"] or 3
    return Wanted(
        name=item["name"],
        state=item["state"],
        layout=Layout(replica, item["arbiter"] or 0, disperse, redundancy),
        bricks=tuple((brick["host"], brick["path"].rstrip("/")) for brick in item["bricks"]),
        group=item["group"] or "",
        options={name: option_text(value) for name, value in item["options"].items()},
        allow=frozenset(item["allow"]),
    )


def _sets(bricks: Bricks, size: int) -> list[Bricks]:
    return [bricks[start : start + size] for start in range(0, len(bricks), size)]


def _keys(bricks: Iterable[Brick]) -> frozenset[tuple[str, str]]:
    return frozenset(brick.key for brick in bricks)


def _names(bricks: Iterable[Brick]) -> str:
    return ", ".join(map(str, bricks))


class VolumePlanner:
    """Plans one volume: what to do, what to refuse, and what it becomes. Pure.

    :ivar steps: (sentence, CLI words) in order.
    """

    def __init__(self, wanted: Wanted, state: Cluster) -> None:
        self._wanted = wanted
        self._state = state
        self._have = state.volumes.get(wanted.name)
        self._bricks = wanted_bricks(wanted, state.hosts)
        self.after: Optional[Volume] = self._have
        self.steps: list[tuple[str, tuple[str, ...]]] = []
        self.refusals: list[str] = []
        self.warnings: list[str] = []
        self._plan()

    def _refuse(self, why: str) -> None:
        self.refusals.append(f"volume {self._wanted.name}: {why}")

    def _step(self, sentence: str, *words: str) -> None:
        self.steps.append((sentence, ("volume", *words)))

    def _plan(self) -> None:
        if self._wanted.state == "absent":
            self._remove()
            return
        self._check_layout()
        if self._have is None:
            self._create()
        self._set_options()
        self._run_or_stop()
        if self._have is not None:
            self._change_topology(self._have)

    def _remove(self) -> None:
        have, name = self._have, self._wanted.name
        if have is None:
            return
        if "delete" not in self._wanted.allow:
            self._refuse(f"deleting it gives up the data on {len(have.bricks)} bricks; allow: [delete] permits it")
        if have.snapshots:
            self._refuse(f"it has {have.snapshots} snapshots; delete them first")
        if have.status == "started":
            self._step(f"stop volume {name}", "stop", name)
        self._step(f"delete volume {name}, leaving the data on its bricks: {_names(have.bricks)}", "delete", name)
        self.after = None

    def _check_layout(self) -> None:
        wanted, size = self._wanted, self._wanted.layout.size
        if not self._bricks or len(self._bricks) % size:
            self._refuse(f"{len(self._bricks)} bricks do not make sets of {size}")
        if len(_keys(self._bricks)) != len(self._bricks):
            self._refuse("a brick is listed twice")
        if not wanted.layout.disperse and wanted.layout.replica < 3 and "replica_change" not in wanted.allow:
            copies = "one copy of the data is no redundancy" if wanted.layout.replica == 1 else "two copies split-brain"
            self._refuse(f"{copies}; take replica 3, or allow: [replica_change]")
        for members in _sets(self._bricks, size):
            if size > 1 and len({brick.owner for brick in members}) != len(members):
                self._refuse(f"a set has two bricks on one host: {_names(members)}")

    def _create(self) -> None:
        wanted = self._wanted
        self._check_hosts(self._bricks)
        words = wanted.layout.words()
        kind = " ".join(words) or "without redundancy"
        sentence = f"create volume {wanted.name} ({kind}) on {_names(self._bricks)}"
        self._step(sentence, "create", wanted.name, *words, *map(str, self._bricks))
        self.after = Volume(wanted.name, "created", wanted.layout, self._bricks, {})

    def _check_hosts(self, bricks: Bricks) -> None:
        unknown = sorted({brick.host for brick in bricks if brick.host not in self._state.hosts})
        if unknown and self._state.formed:
            self._refuse(f"{', '.join(unknown)} not in the pool; add it with gluster_peer")
        for brick in bricks:
            if brick.path in self._state.marked and self._is_local(brick):
                self._refuse(
                    f"{brick} carries the id of a volume, of a former one or of a create that failed half-way; "
                    f"if it holds nothing that is needed: setfattr -x {VOLUME_ID} {brick.path}"
                )

    def _is_local(self, brick: Brick) -> bool:
        return any(peer.local and peer.uuid == brick.owner for peer in self._state.peers)

    def _desired_options(self) -> Optional[dict[str, str]]:
        """Return group and options together, None when the group has no file."""
        wanted = self._wanted
        group: Optional[Mapping[str, str]] = {}
        if wanted.group and not self._state.fresh:
            group = self._state.groups.get(wanted.group)
            if group is None:
                self._refuse(f"there is no option group {wanted.group} in glusterd's working directory")
                return None
        for name in wanted.options:
            if "." not in name:
                self._refuse(f"option {name}: give its full name, as gluster volume info shows it")
        return {**(group or {}), **wanted.options}

    def _set_options(self) -> None:
        desired, have = self._desired_options(), dict(self.after.options if self.after else {})
        if desired is None or self.after is None:
            return
        changed = {name: value for name, value in desired.items() if normal(value) != normal(have.get(name, "\0"))}
        self._check_options(changed)
        if not changed and not (self._state.fresh and self._wanted.group):
            return
        words = [word for pair in changed.items() for word in pair]
        self._step(self._options_sentence(changed, have), "set", self._wanted.name, *words)
        self.after = replace(self.after, options={**have, **changed})

    def _options_sentence(self, changed: Mapping[str, str], have: Mapping[str, str]) -> str:
        wanted = self._wanted
        if self._have is None:
            listed = [f"{name}={value}" for name, value in wanted.options.items()]
            return f"set on volume {wanted.name}: " + ", ".join([f"group {wanted.group}"] * bool(wanted.group) + listed)
        listed = [f"{name}={value} (was {have.get(name, 'not set')})" for name, value in changed.items()]
        return f"set on volume {wanted.name}: " + ", ".join(listed)

    def _check_options(self, changed: Mapping[str, str]) -> None:
        have = self._have
        if have is None:
            return
        real = [name for name in changed if self._really_changes(have, name, changed[name])]
        tls = [name for name in real if name in TLS_OPTIONS]
        if tls and have.status == "started":
            self._refuse(f"changing {', '.join(tls)} cuts off every client; stop the volume first")
        shard = [name for name in real if name in SHARD_OPTIONS]
        if shard and have.status != "created":
            self._refuse(f"changing {', '.join(shard)} of a volume that may hold data damages it; make a new volume")

    @staticmethod
    def _really_changes(have: Volume, name: str, value: str) -> bool:
        return name in DEFAULTS and normal(have.options.get(name, DEFAULTS[name])) != normal(value)

    def _run_or_stop(self) -> None:
        name, state = self._wanted.name, self._wanted.state
        if self.after is None or state == "present" or self.after.status == state:
            return
        if state == "started":
            self._step(f"start volume {name}", "start", name)
        elif self.after.status == "started":
            self._step(f"stop volume {name}", "stop", name)
        else:
            return
        self.after = replace(self.after, status=state)

    def _change_topology(self, have: Volume) -> None:
        missing = [str(brick) for brick in have.bricks if brick.key not in _keys(self._bricks)]
        if missing:
            self._refuse(
                f"it has bricks that are not declared: {', '.join(missing)}; declare them, they are not taken away"
            )
            return
        added = self._added_bricks(have)
        if not added:
            return
        self._check_hosts(added)
        for why in troubles(have, self._state):
            self._refuse(f"no bricks are added while {why}")
        grown = self._wanted.layout != have.layout
        words = self._wanted.layout.words() if grown else []
        kind = f" as {' '.join(words)}" if grown else ""
        self._step(
            f"add bricks to volume {have.name}{kind}: {_names(added)}",
            *("add-brick", have.name, *words, *map(str, added)),
        )
        if not grown:
            self.warnings.append(f"volume {have.name}: new bricks fill only after a rebalance")
        if self.after is not None:
            self.after = replace(self.after, bricks=have.bricks + added, layout=self._wanted.layout)

    def _added_bricks(self, have: Volume) -> Bricks:
        """Return the bricks to add, in the order in which the CLI wants them."""
        wanted, size = self._wanted.layout, have.layout.size
        have_sets = [_keys(members) for members in _sets(have.bricks, size)]
        want_sets = _sets(self._bricks, wanted.size)
        if wanted == have.layout:
            if any(members not in [_keys(found) for found in want_sets] for members in have_sets):
                self._refuse("its bricks form other sets than declared; sets cannot be regrouped")
                return ()
            return tuple(brick for found in want_sets if _keys(found) not in have_sets for brick in found)
        return self._grown_sets(have, have_sets, want_sets)

    def _grown_sets(
        self, have: Volume, have_sets: Sequence[frozenset[tuple[str, str]]], want_sets: Sequence[Bricks]
    ) -> Bricks:
        wanted = self._wanted.layout
        grows = not wanted.disperse and not have.layout.disperse and wanted.replica > have.layout.replica
        if not grows or have.layout.arbiter or len(want_sets) != len(have_sets):
            self._refuse(f"it is {_kind(have.layout)} and cannot become {_kind(wanted)} in place; make a new volume")
            return ()
        if "replica_change" not in self._wanted.allow:
            self._refuse(f"it is {_kind(have.layout)}, declared is {_kind(wanted)}; allow: [replica_change] permits it")
        added: list[Brick] = []
        for members in have_sets:
            grown = next((found for found in want_sets if members <= _keys(found)), None)
            if grown is None:
                self._refuse("its bricks form other sets than declared; sets cannot be regrouped")
                return ()
            added += [brick for brick in grown if brick.key not in members]
        return tuple(added)


def _kind(layout: Layout) -> str:
    return " ".join(layout.words()) or "without redundancy"


def wanted_bricks(wanted: Wanted, hosts: Mapping[str, str]) -> Bricks:
    """Return the declared bricks with their owners, as far as the pool knows them."""
    return tuple(Brick(host, path, hosts.get(host, host)) for host, path in wanted.bricks)


def troubles(volume: Volume, state: Cluster) -> list[str]:
    """Return why the topology of ``volume`` must not change now."""
    found = [f"peer {peer.names[0]} is not connected" for peer in state.peers if not peer.connected]
    if volume.status == "started":
        offline = [brick for brick in volume.bricks if brick.key not in state.online]
        found += [f"brick {brick} is offline" for brick in offline]
        unhealed = state.unhealed.get(volume.name)
        if volume.layout.size > 1 and unhealed is None:
            found.append("the number of entries to heal is unknown")
        elif unhealed:
            found.append(f"{unhealed} entries wait to be healed")
    found += [f"a {task} is in progress" for task in state.tasks.get(volume.name, ())]
    if volume.snapshots:
        found.append(f"it has {volume.snapshots} snapshots")
    return found


class Volumes:
    """All declared volumes of the pool; see the module gluster_volume for the items."""

    def __init__(self, items: Sequence[Mapping[str, Any]], cli: Cli, local_name: str) -> None:
        self._wanted = [_wanted(item) for item in items]
        self._cli = cli
        self._is_local = (lambda name: name == local_name) if local_name else is_this_host

    def read(self) -> Cluster:
        """Look once: three calls, and one more for each volume whose bricks are to change."""
        peers = parse_pool(self._cli("pool", "list"))
        volumes = parse_volumes(self._cli("volume", "info"))
        status = self._cli("volume", "status") if any(one.status == "started" for one in volumes.values()) else None
        hosts = match_hosts({host for one in self._wanted for host, _path in one.bricks}, peers, self._is_local)
        return Cluster(
            peers=peers,
            hosts=hosts,
            volumes=volumes,
            online=frozenset() if status is None else parse_online(status),
            tasks={} if status is None else parse_tasks(status),
            unhealed={name: self._unhealed(name) for name in self._changing(volumes, hosts)},
            groups={one.group: self._group(one.group) for one in self._wanted if one.group},
            marked=frozenset(path for one in self._wanted for _host, path in one.bricks if _is_marked(path)),
        )

    def _changing(self, volumes: Mapping[str, Volume], hosts: Mapping[str, str]) -> list[str]:
        return [
            one.name
            for one in self._wanted
            if one.name in volumes
            and volumes[one.name].status == "started"
            and _keys(wanted_bricks(one, hosts)) != _keys(volumes[one.name].bricks)
        ]

    def _unhealed(self, name: str) -> Optional[int]:
        try:
            return parse_heal(self._cli("volume", "heal", name, "info", "summary"))
        except ClusterError:
            # What cannot be counted is unknown, and unknown is never taken for healed.
            return None

    def _group(self, name: str) -> Optional[dict[str, str]]:
        try:
            with open(os.path.join(self._cli.workdir, "groups", name), encoding="utf-8") as stream:
                return parse_group(stream.read())
        except FileNotFoundError:
            return None

    def blank(self) -> Cluster:
        """Return a host without peers and volumes."""
        return Cluster(fresh=True)

    def plan(self, state: Cluster) -> Plan[Cluster]:
        """Plan each volume in turn."""
        plan: Plan[Cluster] = Plan(state)
        volumes = dict(state.volumes)
        for wanted in self._wanted:
            one = VolumePlanner(wanted, state)
            plan.steps += [Step(sentence, partial(self._do, words)) for sentence, words in one.steps]
            plan.refusals += one.refusals
            plan.warnings += one.warnings
            volumes.pop(wanted.name, None)
            if one.after is not None:
                volumes[wanted.name] = one.after
        plan.predicted = replace(state, volumes=volumes)
        return plan

    def _do(self, words: Collection[str]) -> None:
        self._cli(*words)

    def view(self, state: Cluster) -> dict[str, Any]:
        """Return the declared volumes as plain data."""
        return {"volumes": {one.name: _view(state.volumes.get(one.name)) for one in self._wanted}}


def _view(volume: Optional[Volume]) -> dict[str, Any]:
    if volume is None:
        return {"state": "absent"}
    return {
        "state": volume.status,
        "layout": _kind(volume.layout),
        "bricks": [str(brick) for brick in volume.bricks],
        "options": dict(sorted(volume.options.items())),
    }


def _is_marked(path: str) -> bool:
    try:
        return bool(os.getxattr(path, VOLUME_ID))
    except OSError:
        return False
