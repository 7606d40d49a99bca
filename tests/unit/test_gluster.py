# SPDX-License-Identifier: GPL-3.0-or-later
"""Gluster's backend on XML recorded from GlusterFS 10.3 (Debian 12) and 11.1 (Debian 13)."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import info
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import pool as gluster_pool
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.gate import (
    Gate,
    Seen,
    look_once,
    pass_gate,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import lacking
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.membership import Peers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import (
    UNKNOWN,
    Brick,
    Cluster,
    Heal,
    Layout,
    Task,
    Volume,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import normal
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import (
    parse_heals,
    parse_online,
    parse_tasks,
    parse_volumes,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.pool import parse_pool
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.troubles import survivor_troubles
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.volumes import Volumes
from ansible_collections.personal.cluster.plugins.module_utils._errors import (
    ClusterError,
    CommandFailed,
    NotYet,
    Refused,
)
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed
from declared import volume

RECORDED = Path(__file__).parent / "recorded" / "gluster"
RELEASES = ("10.3", "11.1")
NODES = ("node1", "node2", "node3")
READS = (["pool", "list"], ["volume", "info"], ["volume", "status"], ["volume", "heal"])
VIRT = "network.ping-timeout=20\nfeatures.shard=on\ncluster.eager-lock=enable\n"

pytestmark = pytest.mark.parametrize("release", RELEASES)


def text(release: str, name: str) -> str:
    return (RECORDED / release / f"{name}.xml").read_text()


def xml(release: str, name: str) -> ET.Element:
    return ET.fromstring(text(release, name))


def answer(release: str, name: str) -> str:
    """Return a recording; ``healed`` is the one of a volume that is being healed, some time later."""
    if name != "healed":
        return text(release, name)
    return re.sub(r"(<numberOf\w+|<totalNumberOfEntries)>\d+<", r"\1>0<", text(release, "heal_pending"))


class Fake:
    """A gluster command that answers with recordings and remembers what it was asked."""

    def __init__(self, release: str, **answers: str) -> None:
        self.asked: list[list[str]] = []
        self._release = release
        self._answers = {"pool list": "pool", "volume info": "info", "volume status": "status", **answers}

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        name = self._answers.get(" ".join(words), self._answers.get(" ".join(words[:2]), "start"))
        return Completed(0, answer(self._release, name), "")


def item(name: str, **more: Any) -> dict[str, Any]:
    paths = [f"/bricks/{name}/brick", *(["/bricks/gv1b/brick"] if name == "gv1" else [])]
    bricks = [{"host": host, "path": path} for path in paths for host in NODES]
    return volume(**{"name": name, "bricks": bricks, **more})


def resource(tmp_path: Path, run: Any, *items: dict[str, Any]) -> Volumes:
    (tmp_path / "groups").mkdir(exist_ok=True)
    (tmp_path / "groups" / "virt").write_text(VIRT)
    return Volumes(items, Cli(run, str(tmp_path), "", 0), "node1", str(tmp_path / "backups"))


def plan(tmp_path: Path, run: Any, *items: dict[str, Any]) -> _engine.Plan[Cluster]:
    volumes = resource(tmp_path, run, *items)
    return volumes.plan(volumes.read())


def sentences(found: _engine.Plan[Any]) -> list[str]:
    return [step.sentence for step in found.steps]


def test_the_pool(release: str) -> None:
    peers = parse_pool(xml(release, "pool"))
    assert {name for peer in peers for name in peer.names} == {"localhost", "node2", "node3"}
    assert [peer.local for peer in peers].count(True) == 1
    assert all(peer.connected and peer.member for peer in peers)
    lost = [peer for peer in parse_pool(xml(release, "pool_peer_down")) if not peer.connected]
    assert [peer.names for peer in lost] == [("node3",)]


def test_volumes_and_their_layouts(release: str) -> None:
    volumes = parse_volumes(xml(release, "info"))
    assert {name: " ".join(volume.layout.words()) for name, volume in volumes.items()} == {
        "gv0": "replica 3",
        "gv1": "replica 3",
        "arb": "replica 3 arbiter 1",
        "disp": "disperse 3 redundancy 1",
    }
    assert {volumes["gv0"].status, volumes["arb"].status} == {"started", "created"}
    assert [str(brick) for brick in volumes["gv0"].bricks] == [f"{node}:/bricks/gv0/brick" for node in NODES]
    assert volumes["gv0"].options["features.shard"] == "on"
    assert parse_volumes(xml(release, "info_none")) == {}


def test_which_bricks_run(release: str) -> None:
    volumes = parse_volumes(xml(release, "info"))
    keys = {brick.key: str(brick) for name in ("gv0", "gv1") for brick in volumes[name].bricks}
    assert parse_online(xml(release, "status")) == set(keys)
    down = set(keys) - parse_online(xml(release, "status_brick_down"))
    assert [keys[key] for key in down] == ["node3:/bricks/gv1/brick"]
    gone = {keys[key] for key in set(keys) - parse_online(xml(release, "status_peer_down"))}
    assert gone == {f"node3:/bricks/{name}/brick" for name in ("gv0", "gv1", "gv1b")}


def test_tasks_and_heals(release: str) -> None:
    (task,) = parse_tasks(xml(release, "status_rebalance"))["gv1"]
    assert re.fullmatch(r"[0-9a-f-]{36}", task.uuid) and replace(task, uuid="") == Task("Rebalance", "in progress")
    assert parse_tasks(xml(release, "status")) == {}
    assert set(parse_heals(xml(release, "heal")).values()) == {Heal(0, 0)}
    assert any(heal.entries for heal in parse_heals(xml(release, "heal_pending")).values())
    assert UNKNOWN in parse_heals(xml(release, "heal_brick_down")).values()


def test_an_error_is_read_from_the_answer_and_not_from_the_exit_code(release: str, tmp_path: Path) -> None:
    run = Fake(release, **{"volume set": "set_unknown", "volume create": "create_taken"})
    cli = Cli(run, str(tmp_path), "", 0)
    with pytest.raises(ClusterError, match="nonsense.foo does not exist"):
        cli("volume", "set", "gv1", "nonsense.foo", "1")
    with pytest.raises(ClusterError, match="contained by an existing brick"):
        cli("volume", "create", "gv2")


def test_a_silent_daemon_is_new_or_broken(release: str, tmp_path: Path) -> None:
    cli = Cli(Fake(release, **{"pool list": "no_daemon"}), str(tmp_path), "", 0)
    with pytest.raises(NotYet, match="never used"):
        cli("pool", "list")
    (tmp_path / "glusterd.info").write_text("UUID=1\n")
    with pytest.raises(ClusterError, match=r"systemctl status glusterd\.service") as caught:
        cli("pool", "list")
    assert not isinstance(caught.value, NotYet)


def test_a_truncated_answer_is_an_error(release: str, tmp_path: Path) -> None:
    def run(argv: Sequence[str], **_: Any) -> Completed:
        return Completed(0, text(release, "info")[:700], "")

    with pytest.raises(ClusterError, match="gluster volume info"):
        Cli(run, str(tmp_path), "", 0)("volume", "info")


def test_a_busy_cluster_is_asked_again(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    busy = text(release, "set_unknown").replace(
        "option : nonsense.foo does not exist", "Another transaction is in progress."
    )
    answers = [busy, busy, text(release, "start")]

    def run(argv: Sequence[str], **_: Any) -> Completed:
        return Completed(0, answers.pop(0), "")

    Cli(run, str(tmp_path), "", 60)("volume", "start", "gv0")
    assert answers == []


def test_a_converged_volume_costs_three_calls_and_no_step(release: str, tmp_path: Path) -> None:
    run = Fake(release)
    options = {"features.shard": True, "cluster.eager-lock": "on", "network.ping-timeout": 20}
    found = plan(tmp_path, run, item("gv0", group="virt", options=options), item("gv1"))
    assert sentences(found) == [] and found.refusals == [] and found.warnings == []
    assert run.asked == [["pool", "list"], ["volume", "info"], ["volume", "status"]]


def test_all_options_are_set_with_one_call(release: str, tmp_path: Path) -> None:
    run = Fake(release)
    options = {"network.ping-timeout": 42, "auth.ssl-allow": "node1,node2"}
    volumes = resource(tmp_path, run, item("gv0", group="virt", options=options))
    found = volumes.plan(volumes.read())
    assert sentences(found) == [
        "set on volume gv0: network.ping-timeout=42 (was 20), auth.ssl-allow=node1,node2 (was not set)"
    ]
    found.steps[0].apply()
    words = ["set", "gv0", "network.ping-timeout", "42", "auth.ssl-allow", "node1,node2"]
    assert run.asked[-2:] == [["volume", *words], ["volume", "status"]]


class Many(Fake):
    """A gluster with some volumes, each of which is as the recorded gv0 but for its name."""

    def __init__(self, release: str, names: Sequence[str]) -> None:
        super().__init__(release, **{"volume heal": "heal"})
        self._names = names

    def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
        done = super().__call__(argv, **more)
        volumes = re.findall("<volume>.*?</volume>", done.stdout, re.DOTALL)
        mine = next((found for found in volumes if re.search("<(name|volName)>gv0<", found)), "")
        several = "".join(mine.replace("gv0", name) for name in self._names)
        return replace(done, stdout=re.sub("<volume>.*</volume>", several, done.stdout, flags=re.DOTALL))


@pytest.mark.parametrize("count", [1, 8])
def test_a_look_costs_the_same_for_one_volume_and_for_eight(release: str, tmp_path: Path, count: int) -> None:
    names = [f"v{number}" for number in range(count)]
    look = [["pool", "list"], ["volume", "info"], ["volume", "status"]]
    run = Many(release, names)
    found = plan(tmp_path, run, *(item(name, group="virt") for name in names))
    assert list(found.predicted.volumes) == names and len(found.predicted.online) == 3 * count
    assert (sentences(found), found.refusals, run.asked) == ([], [], look)
    run = Many(release, names)
    options = {"network.ping-timeout": 42, "auth.ssl-allow": "node1"}
    for step in plan(tmp_path, run, *(item(name, options=options) for name in names)).steps:
        step.apply()
    changed = ["network.ping-timeout", "42", "auth.ssl-allow", "node1"]
    assert run.asked == [*look, *(["volume", "set", name, *changed] for name in names), ["volume", "status"]]


@pytest.mark.parametrize("count", [1, 8])
def test_only_a_volume_whose_bricks_change_is_asked_for_its_heals(release: str, tmp_path: Path, count: int) -> None:
    names = [f"v{number}" for number in range(count)]
    run = Many(release, names)
    grows = item("v0", bricks=item("v0")["bricks"] + item("more")["bricks"])
    resource(tmp_path, run, grows, *(item(name) for name in names[1:])).read()
    assert run.asked[3:] == [["volume", "heal", "v0", "info", "summary"]]


def test_a_new_volume_is_created_then_set_then_started(release: str, tmp_path: Path) -> None:
    run = Fake(release)
    found = plan(tmp_path, run, item("new", group="virt", options={"client.ssl": True}))
    assert [sentence.split(" on node1")[0] for sentence in sentences(found)] == [
        "create volume new (replica 3)",
        "set on volume new: group virt, client.ssl=on",
        "start volume new",
    ]
    for step in found.steps:
        step.apply()
    assert run.asked[3][:5] == ["volume", "create", "new", "replica", "3"]
    group = ["network.ping-timeout", "20", "features.shard", "on", "cluster.eager-lock", "enable"]
    assert run.asked[4] == ["volume", "set", "new", *group, "client.ssl", "on"]
    assert run.asked[5] == ["volume", "start", "new"]
    assert all("force" not in words for words in run.asked)


def test_nothing_is_created_while_a_peer_is_away(release: str, tmp_path: Path) -> None:
    """Gluster would refuse it in the run, which check mode has to know before."""
    run = Fake(release, **{"pool list": "pool_peer_down"})
    for check in (True, False):
        with pytest.raises(Refused, match="it is not created while peer node3 is not connected"):
            _engine.converge(resource(tmp_path, run, item("new")), check=check, done=[])
    assert all(words[:2] in READS for words in run.asked)


def test_a_peer_that_was_turned_away_bars_a_change_of_bricks(release: str, tmp_path: Path) -> None:
    volumes = resource(tmp_path, Fake(release, **{"volume heal": "healed"}), grown("/bricks/gv1c/brick"))
    state = volumes.read()
    away = tuple(replace(peer, member=peer.local, state="Peer Rejected (Connected)") for peer in state.peers)
    refusals = volumes.plan(replace(state, peers=away)).refusals
    assert any("peer node3 is no member (Peer Rejected (Connected))" in why for why in refusals)


def test_check_mode_on_a_fresh_host_lists_the_same_sentences(release: str, tmp_path: Path) -> None:
    wanted = item("new", group="virt", options={"client.ssl": True})
    fresh = resource(tmp_path, Fake(release, **{"pool list": "no_daemon"}), wanted)
    checked = _engine.converge(fresh, check=True, done=[])
    assert checked["actions"] == sentences(plan(tmp_path, Fake(release), wanted))


def test_a_host_is_the_same_by_any_name(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {"node2": {"10.0.0.2"}, "node2.lan": {"10.0.0.2"}}
    monkeypatch.setattr(gluster_pool, "addresses_of", lambda name: frozenset(addresses.get(name, ())))
    wanted = item("gv0")
    wanted["bricks"][1]["host"] = "node2.lan"
    assert sentences(plan(tmp_path, Fake(release), wanted)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"replica": 2}, "do not make sets of 2"),
        ({"replica": 1}, "one copy of the data is no redundancy"),
        ({"arbiter": 1}, "cannot become replica 3 arbiter 1 in place"),
        ({"disperse": 3, "redundancy": 1}, "cannot become disperse 3 redundancy 1"),
        ({"bricks": []}, "0 bricks do not make sets"),
        ({"bricks": item("other")["bricks"]}, "bricks that are not declared"),
        ({"bricks": item("gv0")["bricks"] + item("gv0")["bricks"]}, "listed twice"),
        ({"options": {"features.shard-block-size": "128MB"}}, "make a new volume"),
        ({"options": {"server.ssl": "on"}}, "stop the volume first"),
        ({"options": {"ping-timeout": "3"}}, "full name"),
        ({"group": "absent"}, "no option group absent"),
        ({"state": "absent"}, "allow: [delete]"),
    ],
)
def test_refusals(release: str, tmp_path: Path, change: dict[str, Any], why: str) -> None:
    run = Fake(release)
    volumes = resource(tmp_path, run, item("gv0", **change))
    with pytest.raises(Refused) as caught:
        _engine.converge(volumes, check=False, done=[])
    assert why in str(caught.value)
    assert all(words[:2] in READS for words in run.asked)


def grown(*more: str) -> dict[str, Any]:
    wanted = item("gv1")
    wanted["bricks"] += [{"host": host, "path": path} for path in more for host in NODES]
    return wanted


def test_bricks_are_added_to_a_healthy_volume(release: str, tmp_path: Path) -> None:
    run = Fake(release, **{"volume heal": "healed"})
    found = plan(tmp_path, run, grown("/bricks/gv1c/brick"))
    assert found.refusals == []
    assert sentences(found) == [
        "add bricks to volume gv1: " + ", ".join(f"{node}:/bricks/gv1c/brick" for node in NODES),
    ]
    found.steps[0].apply()
    words = ["add-brick", "gv1", *(f"{node}:/bricks/gv1c/brick" for node in NODES)]
    assert run.asked[-2:] == [["volume", *words], ["volume", "status"]]
    assert len(found.predicted.volumes["gv1"].bricks) == 9


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        ({"pool list": "pool_peer_down"}, "peer node3 is not connected"),
        ({"volume status": "status_brick_down"}, "brick node3:/bricks/gv1/brick is offline"),
        ({"volume heal": "heal_pending"}, "entries wait to be healed"),
        ({"volume heal": "heal_brick_down"}, "the number of entries to heal is unknown"),
        ({"volume heal": "no_daemon"}, "the number of entries to heal is unknown"),
        ({"volume status": "status_rebalance"}, "a Rebalance is in progress"),
    ],
)
def test_no_bricks_are_added_while_something_is_wrong(
    release: str, tmp_path: Path, answers: dict[str, str], why: str
) -> None:
    run = Fake(release, **{"volume heal": "heal", **answers})
    with pytest.raises(Refused, match=re.escape(why)):
        _engine.converge(resource(tmp_path, run, grown("/bricks/gv1c/brick")), check=False, done=[])
    assert all(words[:2] in READS for words in run.asked)


def test_snapshots_bar_a_change_of_bricks(release: str, tmp_path: Path) -> None:
    volumes = resource(tmp_path, Fake(release, **{"volume heal": "healed"}), grown("/bricks/gv1c/brick"))
    state = volumes.read()
    kept = {**state.volumes, "gv1": replace(state.volumes["gv1"], snapshots=2)}
    assert any("2 snapshots" in why for why in volumes.plan(replace(state, volumes=kept)).refusals)


def test_deleting_stops_first_and_says_what_stays(release: str, tmp_path: Path) -> None:
    found = plan(tmp_path, Fake(release), item("gv0", state="absent", allow=["delete"]))
    assert sentences(found)[0] == "stop volume gv0"
    assert sentences(found)[1].startswith("delete volume gv0, leaving the data on its bricks: node1:/bricks/gv0/brick")
    assert "gv0" not in found.predicted.volumes


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("enable", "on", True),
        ("No", "off", True),
        ("64MB", "67108864", True),
        ("1GB", "1024MB", True),
        ("64MB", "64KB", False),
        ("on", "off", False),
        ("1", "on", False),
        ("auto", "none", False),
    ],
)
def test_values_are_compared_by_meaning(release: str, one: str, other: str, same: bool) -> None:
    assert (normal(one) == normal(other)) is same


class Pool:
    """A glusterd that takes up peers, slowly."""

    def __init__(self, release: str) -> None:
        self.probed: list[str] = []
        self._release = release
        self._polls = 0

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        if argv[-3:-1] == ["peer", "probe"]:
            self.probed.append(argv[-1])
            self._polls = 0
            return Completed(0, text(self._release, "start"), "")
        self._polls += 1
        root = xml(self._release, "pool")
        status = root.find("peerStatus")
        assert status is not None
        for peer in list(status):
            name = peer.findtext("hostname")
            if name != "localhost" and name not in self.probed:
                status.remove(peer)
            elif [name] == self.probed[-1:] and self._polls < 2:
                for state in peer.iterfind("state"):
                    state.text = "4"
        return Completed(0, ET.tostring(root, encoding="unicode"), "")


def peers(run: Callable[..., Completed], tmp_path: Path) -> Peers:
    return Peers(NODES, Cli(run, str(tmp_path), "", 5), "node1")


def test_missing_hosts_are_probed_and_awaited(release: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    run = Pool(release)
    result = _engine.converge(peers(run, tmp_path), check=False, done=[])
    assert result["actions"] == ["add node2 to the pool", "add node3 to the pool"] and run.probed == ["node2", "node3"]
    assert result["diff"]["after"]["peers"] == {node: {"member": True, "connected": True} for node in NODES}
    assert not _engine.converge(peers(run, tmp_path), check=False, done=[])["changed"]


def test_a_lost_peer_is_a_warning_and_a_rejected_one_a_refusal(release: str, tmp_path: Path) -> None:
    result = _engine.converge(peers(Fake(release, **{"pool list": "pool_peer_down"}), tmp_path), check=False, done=[])
    assert not result["changed"] and result["warnings"] == ["node3 is in the pool but not connected"]
    pool = peers(Fake(release), tmp_path)
    state = pool.read()
    rejected = tuple(replace(peer, member=False, state="Peer Rejected (Connected)") for peer in state.peers)
    assert "Peer Rejected" in pool.plan(replace(state, peers=rejected)).refusals[0]


def test_strangers_are_reported_and_stay(release: str, tmp_path: Path) -> None:
    pool = Peers(NODES[:2], Cli(Fake(release), str(tmp_path), "", 0), "node1")
    found = pool.plan(pool.read())
    assert found.steps == [] and found.warnings == ["node3 is in the pool but not declared; it was left there"]


class Healerless(Fake):
    """A pool in which the self-heal daemon of node2 is down until the volume is started by force.

    ``returns`` is the look at which it is there by itself.
    """

    returns = 0

    def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
        done = super().__call__(argv, **more)
        started = ["volume", "start", "gv0", "force"] in self.asked
        started = started or 0 < self.returns <= self.asked.count(["volume", "status"])
        if self.asked[-1] != ["volume", "status"] or started:
            return done
        root = ET.fromstring(done.stdout)
        volume = next(one for one in root.iter("volume") if one.findtext("volName") == "gv0")
        uuid = next(peer.uuid for peer in parse_pool(xml(self._release, "pool")) if "node2" in peer.names)
        for node in volume.iterfind("node"):
            if (node.findtext("hostname"), node.findtext("peerid")) == ("Self-heal Daemon", uuid):
                for status in node.iterfind("status"):
                    status.text = "0"
        return Completed(0, ET.tostring(root, encoding="unicode"), "")


START_HEALER = ["start the self-heal daemon of volume gv0 on node2"]


def test_a_self_heal_daemon_that_is_down_is_started(release: str, tmp_path: Path, clock: list[float]) -> None:
    run = Healerless(release)
    result = _engine.converge(resource(tmp_path, run, item("gv0")), check=False, done=[])
    assert result["actions"] == START_HEALER and ["volume", "start", "gv0", "force"] in run.asked
    assert not _engine.converge(resource(tmp_path, run, item("gv0")), check=False, done=[])["changed"]


def test_it_is_not_when_it_comes_back_by_itself(release: str, tmp_path: Path, clock: list[float]) -> None:
    run = Healerless(release)
    run.returns = 3
    assert sentences(plan(tmp_path, run, item("gv0"))) == [] and clock[0] > 0


@pytest.mark.parametrize("returns", [0, 10, 40], ids=["never", "soon", "late"])
def test_one_that_crashes_at_a_change_is_waited_for_and_started(
    release: str, tmp_path: Path, clock: list[float], returns: int
) -> None:
    run = Healerless(release)
    volumes = resource(tmp_path, run, item("gv0", options={"network.ping-timeout": 42}))
    run.returns = 1
    found = volumes.plan(volumes.read())
    assert sentences(found) == ["set on volume gv0: network.ping-timeout=42 (was 20)"] and clock[0] == 0
    run.returns = returns and run.asked.count(["volume", "status"]) + returns
    found.steps[0].apply()
    assert (["volume", "start", "gv0", "force"] in run.asked) == (returns != 10)


@pytest.mark.parametrize(
    ("answers", "more"),
    [
        ({"pool list": "pool_peer_down"}, {}),
        ({}, {"state": "present"}),
    ],
)
def test_it_is_not_when_that_could_start_a_brick_or_is_not_asked(
    release: str, tmp_path: Path, clock: list[float], answers: dict[str, str], more: dict[str, Any]
) -> None:
    assert sentences(plan(tmp_path, Healerless(release, **answers), item("gv0", **more))) == []
    assert clock[0] == 0


def test_it_is_not_while_a_brick_is_offline_or_healing_is_switched_off(
    release: str, tmp_path: Path, clock: list[float]
) -> None:
    volumes = resource(tmp_path, Healerless(release), item("gv0"))
    state = volumes.read()
    assert sentences(volumes.plan(state)) == START_HEALER
    gv0 = state.volumes["gv0"]
    assert sentences(volumes.plan(replace(state, online=state.online - {gv0.bricks[2].key}))) == []
    dispersed = Layout(replica=1, disperse=3, redundancy=1)
    for layout, switch in ((gv0.layout, ""), (dispersed, "disperse-")):
        for value in ("disable", "0"):
            options = {**gv0.options, f"cluster.{switch}self-heal-daemon": value}
            assert lacking(replace(gv0, layout=layout, options=options), state) == []
        # The switch of the other kind says nothing.
        options = {**gv0.options, f"cluster.{'' if switch else 'disperse-'}self-heal-daemon": "off"}
        assert lacking(replace(gv0, layout=layout, options=options), state) == ["node2"]


GATE: dict[str, Any] = {"peers": 3, "volumes": ["gv0"], "polls": 3, "interval": 10, "timeout": 60}


def gate(run: Any, tmp_path: Path, **more: Any) -> Seen:
    return pass_gate(Cli(run, str(tmp_path), "", 0), Gate(**{**GATE, **more}))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"polls": 0}, "polls is 0; 1 is the least"),
        ({"interval": -1}, "interval is -1"),
        ({"timeout": -5}, "timeout is -5"),
    ],
)
def test_no_gate_opens_unseen(release: str, tmp_path: Path, more: dict[str, int], why: str) -> None:
    def run(argv: Sequence[str], **_: Any) -> Completed:
        raise AssertionError(f"asked {argv}")

    with pytest.raises(Refused, match=why):
        gate(run, tmp_path, **more)
    with pytest.raises(Refused, match=why):
        look_once(Cli(run, str(tmp_path), "", 0), Gate(**{**GATE, **more}))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let sleep pass the time of a clock that stands still otherwise."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def test_the_gate_opens_after_three_good_looks_of_four_calls(release: str, tmp_path: Path, clock: list[float]) -> None:
    run = Fake(release, **{"volume heal": "heal"})
    assert gate(run, tmp_path) == Seen([], 3) and clock == [20]
    assert len(run.asked) == 12
    assert run.asked[:4] == [
        ["pool", "list"],
        ["volume", "info"],
        ["volume", "status"],
        ["volume", "heal", "gv0", "info", "summary"],
    ]


def test_good_looks_must_follow_each_other(release: str, tmp_path: Path, clock: list[float]) -> None:
    heals = iter(["heal", "heal", "heal_pending", "heal", "heal", "heal"])

    class Changing(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            if "heal" in argv:
                return Completed(0, answer(release, next(heals)), "")
            return super().__call__(argv, **more)

    assert gate(Changing(release), tmp_path).looks == 6


def test_a_daemon_that_crashed_is_started_and_the_gate_opens(release: str, tmp_path: Path, clock: list[float]) -> None:
    class Crashed(Fake):
        started = False

        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            done = super().__call__(argv, **more)
            self.started |= list(argv[-3:]) == ["start", "gv0", "force"]
            whole = self.started or "status" not in argv
            return (
                done
                if whole
                else replace(
                    done, stdout=re.sub("(Self-heal Daemon<.*?<status>)1", r"\g<1>0", done.stdout, flags=re.DOTALL)
                )
            )

    run = Crashed(release, **{"volume heal": "heal"})
    assert gate(run, tmp_path, volumes=["gv0"], timeout=200).troubles == []
    assert clock[0] == 90


def test_daemons_are_told_to_look_again_each_minute(release: str, tmp_path: Path, clock: list[float]) -> None:
    run = Fake(release, **{"volume heal": "heal_pending"})
    with pytest.raises(ClusterError, match="entries wait to be healed"):
        gate(run, tmp_path, volumes=["gv1"], timeout=145)
    assert [words for words in run.asked if words == ["volume", "heal", "gv1"]] == [["volume", "heal", "gv1"]] * 2

    class Slow(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            if list(argv[-2:]) == ["heal", "gv1"]:
                raise CommandFailed("took longer than 360 s")
            return super().__call__(argv, **more)

    with pytest.raises(ClusterError, match="entries wait to be healed"):
        gate(Slow(release, **{"volume heal": "heal_pending"}), tmp_path, volumes=["gv1"], timeout=145)
    run = Fake(release, **{"volume heal": "heal_pending"})
    look_once(Cli(run, str(tmp_path), "", 0), Gate(3, ("gv1",), 3, 10, 60))
    assert ["volume", "heal", "gv1"] not in run.asked


@pytest.mark.parametrize(
    ("answers", "more", "why"),
    [
        ({"pool list": "pool_peer_down"}, {}, "peer node3 is not connected; 2 of 3 peers are there"),
        ({"pool list": "pool_alone"}, {}, "1 of 3 peers are there"),
        (
            {"volume status": "status_brick_down"},
            {"volumes": ["gv1"]},
            "volume gv1: brick node3:/bricks/gv1/brick is offline",
        ),
        (
            {"volume status": "status_peer_down"},
            {"volumes": ["gv1"]},
            "volume gv1: the self-heal daemon on node3 does not run",
        ),
        ({"volume status": "status_rebalance"}, {"volumes": ["gv1"]}, "volume gv1: a Rebalance is in progress"),
        ({"volume heal": "heal_pending"}, {"volumes": ["gv1"]}, "entries wait to be healed"),
        ({"volume heal": "heal_brick_down"}, {"volumes": ["gv1"]}, "the number of entries to heal is unknown"),
        ({"volume heal": "no_daemon"}, {}, "the number of entries to heal is unknown"),
        ({}, {"volumes": ["gone"]}, "volume gone: it does not exist"),
        ({}, {"volumes": ["arb"]}, "volume arb: it is created, not started"),
        ({}, {"timeout": 15}, "all was well in the last 2 looks, 3 in a row are asked for"),
        ({}, {"without": ["node9"]}, "node9 is no member of the pool"),
        (
            {},
            {"without": ["node2", "node3"], "volumes": ["gv1"]},
            "volume gv1: only node1:/bricks/gv1/brick of a set is left",
        ),
        (
            {"pool list": "pool_peer_down", "volume status": "status_peer_down"},
            {"without": ["node2"], "volumes": ["gv1"]},
            "peer node3 is not connected; 1 of 2 peers are there",
        ),
        (
            {"volume status": "status_brick_down", "volume heal": "heal_brick_down"},
            {"without": ["node2"], "volumes": ["gv1"]},
            "volume gv1: the heal state of node3:/bricks/gv1/brick is unknown",
        ),
    ],
)
def test_the_gate_stays_shut(
    release: str, tmp_path: Path, clock: list[float], answers: dict[str, str], more: dict[str, Any], why: str
) -> None:
    run = Fake(release, **{"volume heal": "heal", **answers})
    with pytest.raises(ClusterError, match=re.escape(why)):
        gate(run, tmp_path, **more)
    assert clock[0] <= 60


def test_a_lost_node_does_not_shut_the_gate(release: str, tmp_path: Path, clock: list[float]) -> None:
    class Idle(Fake):
        def __call__(self, argv: Sequence[str], **more: Any) -> Completed:
            done = super().__call__(argv, **more)
            # In one of the recordings a rebalance is under way. The daemons have crashed, as after a reset.
            text = re.sub("<tasks>.*?</tasks>", "<tasks/>", done.stdout, flags=re.DOTALL)
            return Completed(0, re.sub("(Self-heal Daemon<.*?<status>)1", r"\g<1>0", text, flags=re.DOTALL), "")

    down = {"pool list": "pool_peer_down", "volume status": "status_peer_down", "volume heal": "heal_brick_down"}
    assert gate(Idle(release, **down), tmp_path, without=["node3"], volumes=["gv1"]) == Seen([], 3)


def test_a_volume_without_copies_has_no_heal_state(release: str) -> None:
    brick = Brick("node1", "/bricks/one/brick", "u1")
    one = Volume("one", "started", Layout(1, 0, 0, 0), (brick,), {})
    assert survivor_troubles((brick,), one, Cluster(online=frozenset({brick.key}))) == []


def test_split_brain_is_named(release: str, tmp_path: Path, clock: list[float]) -> None:
    kinds = {f"volume {kind}": f"split_brain_{kind}" for kind in ("info", "status", "heal")}
    why = "in split-brain on node1:/bricks/s/brick.*heal spl info split-brain"
    with pytest.raises(ClusterError, match=why):
        gate(Fake(release, **{"pool list": "moving/pool", **kinds}), tmp_path, volumes=["spl"])


def test_in_check_mode_the_gate_looks_once_even_where_gluster_never_was(release: str, tmp_path: Path) -> None:
    wanted = Gate(3, (), 3, 10, 60)
    seen = look_once(Cli(Fake(release, **{"pool list": "no_daemon"}), str(tmp_path), "", 0), wanted)
    assert seen.looks == 1 and "never used" in seen.troubles[0]


def test_what_volume_info_tells(release: str, tmp_path: Path) -> None:
    run = Fake(release, **{"volume heal": "heal_brick_down"})
    told = info.volumes(Cli(run, str(tmp_path), "", 0), ["gv1", "arb"], heal=True)["volumes"]
    assert list(told) == ["arb", "gv1"] and not told["gv1"]["healed"] and not told["arb"]["healed"]
    assert told["gv1"]["bricks"][0]["path"] == "/bricks/gv1/brick" and told["gv1"]["bricks"][3]["set"] == 1
    assert None in [brick["entries"] for brick in told["gv1"]["bricks"]]
    assert all(brick["online"] for brick in told["gv1"]["bricks"])
    assert len(run.asked) == 4
    healed = info.volumes(Cli(Fake(release, **{"volume heal": "healed"}), str(tmp_path), "", 0), ["gv1"], heal=True)
    assert healed["volumes"]["gv1"]["healed"]


def test_what_peer_info_tells(release: str, tmp_path: Path) -> None:
    told = info.peers(Cli(Fake(release, **{"pool list": "pool_peer_down"}), str(tmp_path), "", 0))["peers"]
    assert told["localhost"]["local"] and told["node2"]["connected"] and not told["node3"]["connected"]
    assert all(len(peer["uuid"]) == 36 for peer in told.values())
    fresh = Cli(Fake(release, **{"pool list": "no_daemon"}), str(tmp_path), "", 0)
    assert info.unless_new(lambda: info.peers(fresh), check=True) == {"available": False}
    with pytest.raises(NotYet):
        info.unless_new(lambda: info.peers(fresh), check=False)
