# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that leave a pool, and one that comes back as itself, on what GlusterFS 10.3 and 11.1 really answer."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.departure import Holdings, Leavers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.identity import Restored
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.membership import Peers
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RELEASES = Path(__file__).parent / "recorded" / "gluster"
FOLDER: dict[str, Path] = {}
OLD = "2278f0d2-2405-4f4c-8d12-0ed79d12fe7d"
NEW = "70d26773-4cf2-43ac-a443-d600079deee8"
PEERS = {"node1": "0cce4662-9892-4825-b45f-e8d6e00edd60", "node3": OLD}


@pytest.fixture(autouse=True, params=["10.3", "11.1"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs on what each release answered."""
    monkeypatch.setitem(FOLDER, "release", RELEASES / request.param)


class Fake:
    """A gluster whose pool loses who is detached."""

    def __init__(self, pool: str = "pool", info: str = "info_none") -> None:
        self.asked: list[list[str]] = []
        self._answers = {"pool": pool, "volume": info, "peer": "start"}

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        text = (FOLDER["release"] / f"{self._answers[words[0]]}.xml").read_text()
        for detached in (asked[2] for asked in self.asked if asked[:2] == ["peer", "detach"]):
            text = re.sub(rf"<peer>(?:(?!</peer>).)*<hostname>{detached}<.*?</peer>", "", text, flags=re.DOTALL)
        return Completed(0, text, "")


def leavers(run: Fake, work: Path, *names: str, allow: Sequence[str] = ()) -> Leavers:
    return Leavers(names, Cli(run, str(work), "", 0), "node1", allow)


def test_named_hosts_leave_and_nobody_else(tmp_path: Path) -> None:
    run = Fake()
    checked = _engine.converge(leavers(run, tmp_path, "node3", "node9"), check=True, done=[])
    done = _engine.converge(leavers(run, tmp_path, "node3", "node9"), check=False, done=[])
    assert checked["actions"] == done["actions"] == ["remove node3 from the pool"]
    assert done["peers"] == {"node3": {"member": False}, "node9": {"member": False}} == checked["peers"]
    assert [words for words in run.asked if words[0] == "peer"] == [["peer", "detach", "node3"]]
    assert not _engine.converge(leavers(run, tmp_path, "node3", "node9"), check=False, done=[])["changed"]


@pytest.mark.parametrize(
    ("run", "names", "why"),
    [
        (Fake(info="info"), ("node3",), "it holds node3:/bricks/gv0/brick of volume gv0; replace them"),
        (Fake(), ("node1",), "it is this host"),
        (Fake("pool_peer_down"), ("node3",), "allow: [disconnected] permits it"),
    ],
)
def test_who_does_not_leave(tmp_path: Path, run: Fake, names: Sequence[str], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        _engine.converge(leavers(run, tmp_path, *names), check=False, done=[])
    assert [words for words in run.asked if words[0] == "peer"] == []


def test_a_host_that_is_gone_for_good_leaves_when_allowed(tmp_path: Path) -> None:
    run = Fake("pool_peer_down")
    done = _engine.converge(leavers(run, tmp_path, "node3", allow=["disconnected"]), check=False, done=[])
    assert done["changed"] and run.asked[2] == ["peer", "detach", "node3", "force"]


def test_those_that_are_away_leave_first_and_each_once(tmp_path: Path) -> None:
    pool = leavers(Fake("pool_peer_down"), tmp_path, "node2", "node3", "node2", allow=["disconnected"])
    state = pool.read()
    assert [step.sentence for step in pool.plan(state).steps] == [
        "remove node3 from the pool",
        "remove node2 from the pool",
    ]
    # Gluster wants all that stay to be there when one goes that is.
    pool = leavers(Fake("pool_peer_down"), tmp_path, "node2", allow=["disconnected"])
    assert pool.plan(state).refusals == ["node2 is not removed from the pool: peer node3 is not connected"]


def test_where_gluster_never_was_nobody_is_to_leave(tmp_path: Path) -> None:
    blank = leavers(Fake(), tmp_path, "node3").blank()
    assert isinstance(blank, Holdings) and leavers(Fake(), tmp_path, "node3").plan(blank).steps == []


def test_a_reinstalled_host_is_sent_to_its_identity(tmp_path: Path) -> None:
    pool = Peers(("node1", "node2", "node3"), Cli(Fake(), str(tmp_path), "", 0), "node1")
    state = pool.read()
    rejected = tuple(
        replace(peer, member=False, state="Peer Rejected") if "node3" in peer.names else peer for peer in state.peers
    )
    uuid = next(peer.uuid for peer in state.peers if "node3" in peer.names)
    refusals = pool.plan(replace(state, peers=rejected)).refusals
    assert len(refusals) == 1 and f"gluster_identity gives it back its UUID {uuid}" in refusals[0]


class Systemd:
    """A systemctl with one unit."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.asked: list[str] = []

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        self.asked.append(argv[1])
        if argv[1] in ("stop", "start"):
            self.active = argv[1] == "start"
        return Completed(0, "active\n" if self.active else "inactive\n", "")


def restored(run: Any, work: Path, **more: Any) -> Restored:
    wanted: dict[str, Any] = {"wanted": OLD, "peers": PEERS, "op_version": 0, "service": "glusterd.service", **more}
    cli = Cli(run, str(work), "", wanted.pop("timeout", 0))
    return Restored(**{"volumes": (), **wanted}, cli=cli, run=run)


def reinstalled(work: Path) -> None:
    (work / "peers").mkdir()
    (work / "vols").mkdir()
    (work / "glusterd.info").write_text(f"UUID={NEW}\noperating-version=100000\n")


def test_a_reinstalled_node_becomes_itself_again(tmp_path: Path) -> None:
    reinstalled(tmp_path)
    run = Systemd(active=True)
    checked = _engine.converge(restored(run, tmp_path), check=True, done=[])
    assert run.asked == ["is-active"] and NEW in (tmp_path / "glusterd.info").read_text()
    done = _engine.converge(restored(run, tmp_path), check=False, done=[])
    assert (
        checked["actions"]
        == done["actions"]
        == [
            f"give glusterd the identity {OLD} (was {NEW}) and the peers node1",
            "start glusterd.service",
        ]
    )
    assert [word for word in run.asked if word != "is-active"] == ["stop", "start"]
    assert (tmp_path / "glusterd.info").read_text() == f"UUID={OLD}\noperating-version=100000\n"
    assert [path.name for path in (tmp_path / "peers").iterdir()] == [PEERS["node1"]]
    peer = (tmp_path / "peers" / PEERS["node1"]).read_text()
    assert peer == f"uuid={PEERS['node1']}\nstate=3\nhostname1=node1\n"
    assert done["uuid"] == checked["uuid"] == OLD and done["peers"] == checked["peers"]
    assert not _engine.converge(restored(run, tmp_path), check=False, done=[])["changed"]


class Fetching(Systemd):
    """A glusterd that is slow to answer, and slow to fetch the volumes of its pool."""

    def __init__(self, active: bool) -> None:
        super().__init__(active)
        self._answers = [None, "info_none", "info"]

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        if argv[0] == "systemctl":
            return super().__call__(argv, **options)
        self.asked.append("volumes")
        answer = self._answers.pop(0)
        return Completed(0, (FOLDER["release"] / f"{answer}.xml").read_text() if answer else "Connection failed", "")


def test_glusterd_is_started_once_more_when_it_has_the_volumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    reinstalled(tmp_path)
    run = Fetching(active=True)
    wanted = restored(run, tmp_path, volumes=["gv0"], timeout=60)
    checked = _engine.converge(wanted, check=True, done=[])
    done = _engine.converge(wanted, check=False, done=[])
    assert checked["actions"] == done["actions"]
    assert done["actions"][1] == "start glusterd.service, let it fetch gv0, and start it once more"
    assert [word for word in run.asked if word != "is-active"] == ["stop", "start", *["volumes"] * 3, "restart"]
    assert not _engine.converge(wanted, check=False, done=[])["changed"]


def test_killed_before_it_was_started_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    reinstalled(tmp_path)
    wanted = restored(Fetching(active=True), tmp_path, volumes=["gv9"])
    with pytest.raises(ClusterError, match="the peers node1 did not tell of the volumes gv9 within 0 s"):
        _engine.converge(wanted, check=False, done=[])
    again = Fetching(active=True)
    done = _engine.converge(restored(again, tmp_path, volumes=["gv0"], timeout=60), check=False, done=[])
    assert done["actions"] == ["start glusterd.service, let it fetch gv0, and start it once more"]
    assert "restart" in again.asked and "stop" not in again.asked


def test_a_node_without_glusterd_gets_its_identity_before_the_first_start(tmp_path: Path) -> None:
    work = tmp_path / "glusterd"
    done = _engine.converge(restored(None, work, service="", op_version=110000), check=False, done=[])
    assert len(done["actions"]) == 1 and "active" not in done
    assert (work / "glusterd.info").read_text() == f"UUID={OLD}\noperating-version=110000\n"


def test_a_run_that_was_killed_is_completed(tmp_path: Path) -> None:
    reinstalled(tmp_path)
    (tmp_path / "peers" / PEERS["node1"]).write_text(f"uuid={PEERS['node1']}\nstate=3\nhostname1=node1\n")
    (tmp_path / "glusterd.info").write_text(f"UUID={OLD}\n")
    run = Systemd(active=False)
    assert _engine.converge(restored(run, tmp_path), check=False, done=[])["actions"] == ["start glusterd.service"]


def test_killed_between_the_identity_and_the_peers(tmp_path: Path) -> None:
    reinstalled(tmp_path)
    (tmp_path / "glusterd.info").write_text(f"UUID={OLD}\noperating-version=100000\n")
    done = _engine.converge(restored(Systemd(active=False), tmp_path), check=False, done=[])
    assert done["changed"] and done["peers"] == {"node1": PEERS["node1"]}


def test_killed_while_a_peer_was_written(tmp_path: Path) -> None:
    reinstalled(tmp_path)
    (tmp_path / "glusterd.info").write_text(f"UUID={OLD}\noperating-version=100000\n")
    half = tmp_path / "peers" / f".{PEERS['node1']}.new"
    half.write_text("uuid=")
    done = _engine.converge(restored(Systemd(active=False), tmp_path), check=False, done=[])
    assert done["peers"] == {"node1": PEERS["node1"]} and not half.exists()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"wanted": "node3"}, "node3 is no UUID"),
        ({"peers": {"node1": "x"}}, "x is no UUID"),
        ({"peers": {"node3": OLD}}, "no other node is named in peers"),
        ({}, f"the glusterd of this host is {NEW} and belongs to a pool: it knows the peers none and the volumes gv0"),
    ],
)
def test_an_identity_is_not_taken_away(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    reinstalled(tmp_path)
    (tmp_path / "vols" / "gv0").mkdir()
    run = Systemd(active=True)
    with pytest.raises(Refused, match=re.escape(why)):
        _engine.converge(restored(run, tmp_path, **more), check=False, done=[])
    assert NEW in (tmp_path / "glusterd.info").read_text() and "stop" not in run.asked
