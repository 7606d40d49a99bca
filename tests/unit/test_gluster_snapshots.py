# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of volumes on thin LVs, on answers of GlusterFS 10.3 and 11.1 recorded in the lab."""

from __future__ import annotations

import re
import uuid
import xml.etree.ElementTree as ET
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Heal, Task
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import may_be_purged
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_volumes
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.snapshots import Pools, Snapshots, told
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RELEASES = Path(__file__).parent / "recorded" / "gluster"
FOLDER: dict[str, Path] = {}
HEALED = Heal(0, 0)
CHANGES = ("create", "delete", "restore")


@pytest.fixture(autouse=True, params=["10.3", "11.1"])
def recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs on what each release answered."""
    monkeypatch.setitem(FOLDER, "release", RELEASES / request.param)


def text(name: str) -> str:
    return (FOLDER["release"] / "snapshots" / f"{name}.xml").read_text()


class Fake:
    """A gluster that keeps the recorded snapshot from its creation until it is deleted or restored."""

    def __init__(self, there: bool, volume: str = "volume_stopped") -> None:
        self.there = there
        self.asked: list[list[str]] = []
        self._volume = volume

    def __call__(self, argv: Sequence[str], **_: Any) -> Completed:
        words = [word for word in argv[1:] if not word.startswith("-")]
        self.asked.append(words)
        if words[1] in CHANGES:
            self.there = words[1] == "create"
            return Completed(0, text(words[1]), "")
        answers = {"pool": "pool", "volume": self._volume, "snapshot": "info" if self.there else "none"}
        return Completed(0, text(answers[words[0]]), "")

    @property
    def changes(self) -> list[list[str]]:
        return [words for words in self.asked if words[1] in CHANGES]


def one(state: str, **more: str) -> dict[str, str]:
    return {"name": "s1", "volume": "sv", "state": state, "description": "before the upgrade", **more}


class Healthy(Snapshots):
    """Snapshots of a volume that is started, with all bricks online and healed."""

    def read(self) -> Any:
        seen = super().read()
        have = seen.cluster.volumes["sv"]
        online = frozenset(brick.key for brick in have.bricks)
        heals = {"sv": {str(brick): HEALED for brick in have.bricks}}
        volumes = {"sv": replace(have, status="started")}
        return replace(seen, cluster=replace(seen.cluster, online=online, heals=heals, volumes=volumes))


class Parted(Snapshots):
    """Snapshots of a pool of which the other members are not there."""

    def read(self) -> Any:
        seen = super().read()
        peers = tuple(replace(peer, connected=peer.local) for peer in seen.cluster.peers)
        return replace(seen, cluster=replace(seen.cluster, peers=peers))


class Busy(Snapshots):
    """Snapshots of a volume that is being balanced."""

    def read(self) -> Any:
        seen = super().read()
        return replace(seen, cluster=replace(seen.cluster, tasks={"sv": (Task("Rebalance", "in progress"),)}))


class Lvm:
    """Thin pools below bricks, as full as the test says, and the bricks that were asked for."""

    def __init__(self, data: float | None = 3.65, metadata: float = 10.28) -> None:
        self.asked: list[str] = []
        self._used = data, metadata

    def __call__(self, paths: Collection[str]) -> Pools:
        self.asked += paths
        return {path: ("vg_sv/pool", *self._used) for path in paths}


def run(
    fake: Any,
    work: Path,
    *items: dict[str, str],
    check: bool = False,
    kind: type[Snapshots] = Snapshots,
    allow: Sequence[str] = (),
    pools: Lvm | None = None,
) -> dict[str, Any]:
    resource = kind(items, Cli(fake, str(work), "", 0), allow, pools or Lvm())
    return _engine.converge(resource, check=check, done=[])


def test_a_snapshot_is_made_once(tmp_path: Path) -> None:
    fake = Fake(there=False)
    checked = run(fake, tmp_path, one("present"), check=True, kind=Healthy)
    done = run(fake, tmp_path, one("present"), kind=Healthy)
    assert checked["actions"] == done["actions"] == ["make snapshot s1 of volume sv"]
    about = ["description", "before the upgrade"]
    assert fake.changes == [["snapshot", "create", "s1", "sv", "no-timestamp", *about]]
    assert done["snapshots"]["s1"]["description"] == "before the upgrade" and done["snapshots"]["s1"]["created"]
    assert not run(fake, tmp_path, one("present"), kind=Healthy)["changed"]


class Two(Snapshots):
    """Snapshots of a volume that has two."""

    def read(self) -> Any:
        seen = super().read()
        return replace(seen, snapshots={name: replace(seen.snapshots["s1"], name=name) for name in ("s1", "s2")})


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ((one("restored"), one("restored", name="s2")), "volume sv: one snapshot is restored, once in its life; 2 are"),
        ((one("absent"), one("absent")), "snapshot s1: it is declared 2 times"),
        ((one("absent"), one("present")), "snapshot s1: it is declared 2 times"),
    ],
)
def test_no_two_items_are_about_the_same(tmp_path: Path, items: Sequence[dict[str, str]], why: str) -> None:
    fake = Fake(there=True)
    with pytest.raises(Refused, match=re.escape(why)):
        run(fake, tmp_path, *items, kind=Two, allow=["restore"])
    assert fake.changes == []


def test_a_snapshot_is_deleted_by_name(tmp_path: Path) -> None:
    fake = Fake(there=True)
    checked = run(fake, tmp_path, one("absent"), one("absent", name="s9"), check=True)
    done = run(fake, tmp_path, one("absent"), one("absent", name="s9"))
    assert checked["actions"] == done["actions"] == ["delete snapshot s1 of volume sv"] and done["snapshots"] == {}
    assert fake.changes == [["snapshot", "delete", "s1"]]
    assert not run(fake, tmp_path, one("absent"))["changed"]


def test_a_volume_is_restored_when_allowed_and_only_once(tmp_path: Path) -> None:
    fake = Fake(there=True)
    checked = run(fake, tmp_path, one("restored"), check=True, allow=["restore"])
    done = run(fake, tmp_path, one("restored"), allow=["restore"])
    assert checked["actions"] == done["actions"] and "the snapshot is used up" in done["actions"][0]
    assert fake.changes == [["snapshot", "restore", "s1"]]
    again = run(fake, tmp_path, one("restored"), allow=["restore"])
    assert not again["changed"] and again["warnings"] == [
        "snapshot s1 is not there; it was restored already, or never made"
    ]


@pytest.mark.parametrize(
    ("fake", "item", "kind", "why"),
    [
        (Fake(there=True), one("restored"), Snapshots, "allow: [restore] permits it"),
        (Fake(there=True), one("restored"), Healthy, "volume sv is started; end what uses it and stop it"),
        (Fake(there=True), one("restored"), Parted, "it is not restored while peer node3 is not connected"),
        (Fake(there=True), one("restored"), Busy, "it is not restored while a Rebalance is in progress"),
        (Fake(there=True), one("present", volume="other"), Snapshots, "it is one of volume sv, not of other"),
        (Fake(there=True), one("absent", volume="other"), Snapshots, "it is one of volume sv, not of other"),
        (Fake(there=False), one("present", volume="other"), Snapshots, "there is no volume other"),
        (Fake(there=False), one("present"), Snapshots, "not made while volume sv is stopped, not started"),
    ],
)
def test_refusals(tmp_path: Path, fake: Fake, item: dict[str, str], kind: type[Snapshots], why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        run(fake, tmp_path, item, kind=kind)
    assert fake.changes == []


def test_a_volume_is_restored_once_in_its_life(tmp_path: Path) -> None:
    info = tmp_path / "vols" / "sv" / "info"
    info.parent.mkdir(parents=True)
    resource = Snapshots([one("restored")], Cli(Fake(there=True), str(tmp_path), "", 0), ["restore"], Lvm())
    for noted, refused in (("00000000-0000-0000-0000-000000000000", False), (str(uuid.uuid4()), True)):
        info.write_text(f"type=2\nrestored_from_snap={noted}\nquota-version=0\n")
        found = resource.plan(resource.read()).refusals
        assert any("volume sv was restored before" in why for why in found) is refused, found


def test_a_volume_with_several_bricks_on_a_node_is_not_restored(tmp_path: Path) -> None:
    resource = Snapshots([one("restored")], Cli(Fake(there=True), str(tmp_path), "", 0), ["restore"], Lvm())
    state = resource.read()
    assert resource.plan(state).refusals == []
    volume = state.cluster.volumes["sv"]
    more = tuple(replace(brick, path=f"{brick.path}b") for brick in volume.bricks)
    volumes = {**state.cluster.volumes, "sv": replace(volume, bricks=volume.bricks + more)}
    (refusal,) = resource.plan(replace(state, cluster=replace(state.cluster, volumes=volumes))).refusals
    assert "volume sv has several bricks on a node" in refusal


def test_nothing_is_snapped_half_healed_or_half_there(tmp_path: Path) -> None:
    class Dead(Healthy):
        def read(self) -> Any:
            seen = super().read()
            return replace(seen, cluster=replace(seen.cluster, online=frozenset(), heals={}))

    fake = Fake(there=False)
    with pytest.raises(Refused, match=r"node1:/bricks/sv/brick is offline.*entries to heal is unknown"):
        run(fake, tmp_path, one("present"), kind=Dead)
    assert fake.changes == []


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        (Lvm(data=80), r"vg_sv/pool of this host is 80.0 % full \(data\).*lvextend --extents \+50%FREE vg_sv/pool"),
        (Lvm(data=None), r"how full thin pool vg_sv/pool of this host is \(data\) is unknown: see lvs -a vg_sv"),
        (Lvm(metadata=93.27), r"is 93.3 % full \(metadata\).*lvextend --poolmetadatasize \+64m vg_sv/pool"),
    ],
)
def test_nothing_is_snapped_on_a_pool_that_is_nearly_full(tmp_path: Path, pools: Lvm, why: str) -> None:
    fake = Fake(there=False)
    with pytest.raises(Refused, match=why):
        run(fake, tmp_path, one("present"), kind=Healthy, pools=pools)
    assert fake.changes == []


def test_only_pools_below_local_bricks_of_a_new_snapshot_are_looked_at(tmp_path: Path) -> None:
    there, due = Lvm(data=99), Lvm(data=79.99)
    assert not run(Fake(there=True), tmp_path, one("present"), kind=Healthy, pools=there)["changed"]
    assert there.asked == []
    assert run(Fake(there=False), tmp_path, one("present"), check=True, kind=Healthy, pools=due)["changed"]
    assert due.asked == ["/bricks/sv/brick"]


def test_a_host_without_lvm_is_named(tmp_path: Path) -> None:
    # 11.1 tells what it knows without LVM, too.
    without_lvm = (RELEASES / "10.3" / "snapshots" / "without_lvm.xml").read_text()

    def without(argv: Sequence[str], **_: Any) -> Completed:
        name = {"pool": "pool", "volume": "volume_stopped"}.get(argv[-2])
        return Completed(0, text(name) if name else without_lvm, "")

    with pytest.raises(ClusterError, match="which is not on this host: install lvm2"):
        run(without, tmp_path, one("absent"))


MADE = {"10.3": "2026-12-01 02:15:58 +0000", "11.1": "2026-12-01 00:47:37 +0000"}


@pytest.mark.parametrize(
    ("there", "volumes", "names"),
    [(True, [], ["s1"]), (True, ["gone", "sv"], ["s1"]), (True, ["gone"], []), (False, [], [])],
)
def test_what_snapshot_info_tells(tmp_path: Path, there: bool, volumes: list[str], names: list[str]) -> None:
    fake = Fake(there)
    one = {"volume": "sv", "created": MADE[FOLDER["release"].name], "description": "before the upgrade"}
    snapshots = dict.fromkeys(names, one)
    assert told(Cli(fake, str(tmp_path), "", 0), volumes) == {"available": True, "snapshots": snapshots}
    assert fake.asked == [["snapshot", "info"]]


def test_where_gluster_never_was_there_are_no_snapshots(tmp_path: Path) -> None:
    def silent(argv: Sequence[str], **_: Any) -> Completed:
        return Completed(1, (FOLDER["release"] / "no_daemon.xml").read_text(), "")

    cli = Cli(silent, str(tmp_path), "", 0)
    assert told(cli, []) == {"available": False, "snapshots": {}}
    (tmp_path / "glusterd.info").write_text("UUID=1\n")
    with pytest.raises(ClusterError, match="used on this host before"):
        told(cli, [])


def test_where_gluster_never_was_a_check_lists_the_snapshot(tmp_path: Path) -> None:
    resource = Snapshots([one("present")], Cli(Fake(there=False), str(tmp_path), "", 0), [], Lvm())
    plan = resource.plan(resource.blank())
    assert [step.sentence for step in plan.steps] == ["make snapshot s1 of volume sv"] and plan.refusals == []


def test_what_a_snapshot_leaves_on_its_volume_is_not_purged() -> None:
    for name, snapshots in (("volume", 2), ("volume_stopped", 2), ("volume_restored", 0)):
        left = parse_volumes(ET.fromstring(text(name)))["sv"]
        assert left.snapshots == snapshots and [name for name in left.options if may_be_purged(name)] == []
