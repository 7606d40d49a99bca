# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs and the layout of the role storage."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml
from ansible_collections.personal.cluster.plugins.filter.disks import disk_names
from ansible_collections.personal.cluster.plugins.filter.systemd import systemd_path
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import BEGUN, TOLD, Brick
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.refilling import Noted
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner

ROLE = Path(__file__).parents[2] / "roles" / "storage"
RECORDED = Path(__file__).parent / "recorded" / "gluster"
NODES = ("node1", "node2", "node3")


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROLE / "files" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


brick_join = program("brick_join")
gluster_mount = program("gluster_mount")


def render(template: str, **variables: Any) -> str:
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {
        "combine": lambda one, other: {**one, **other},
        "to_json": json.dumps,
        "personal.cluster.systemd_path": systemd_path,
    }
    text = (ROLE / "templates" / template).read_text()
    return environment.from_string(text).render({**defaults, "inventory_hostname": "node1", **variables})


def gluster_volumes(
    disks: dict[str, list[dict[str, str]]], reset: Sequence[str] = (), **more: Any
) -> list[dict[str, Any]]:
    """Return what the role hands to gluster_volume."""
    text = render(
        "gluster_volumes.yml.j2",
        storage_nodes=list(disks),
        storage_node_disks=disks,
        storage_rebalance="fix-layout",
        __storage_tls_options={},
        __storage_brick_disks=[disk for disk in disks["node1"] if disk["volume"] != "bmv0"],
        __storage_reset=reset,
        **more,
    )
    volumes: list[dict[str, Any]] = yaml.safe_load(text)
    return volumes


def bricks(
    disks: dict[str, list[dict[str, str]]], key: str = "bricks", reset: Sequence[str] = ()
) -> dict[str, list[str]]:
    return {
        volume["name"]: [f"{brick['host']}:{brick['path']}" for brick in volume[key] or []]
        for volume in gluster_volumes(disks, reset)
    }


def test_a_disk_without_a_name_is_called_after_its_volume() -> None:
    disks = [{"volume": "gv0"}, {"volume": "gv1", "name": "gv1b"}, {"volume": "bmv0", "name": ""}]
    assert disk_names(disks) == ["gv0", "gv1b", "bmv0"] and disk_names([]) == []


def test_only_the_named_disk_of_this_node_is_reset() -> None:
    disks = [{"volume": "gv0"}, {"volume": "gv1"}, {"volume": "gv1", "name": "gv1b"}, {"volume": "bmv0"}]
    by_node = {node: disks for node in NODES}
    assert bricks(by_node, "reset") == {"gv0": [], "gv1": []}
    assert bricks(by_node, "reset", ["gv1b"]) == {"gv0": [], "gv1": ["node1:/bricks/gv1b/brick"]}
    assert bricks(by_node, "reset", ["gv1", "bmv0"]) == {"gv0": [], "gv1": ["node1:/bricks/gv1/brick"]}


def test_each_replica_set_spans_the_hosts() -> None:
    disks = [{"volume": "gv0"}, {"volume": "gv1"}, {"volume": "gv1", "name": "gv1b"}, {"volume": "bmv0"}]
    found = bricks({node: disks for node in NODES})
    assert found["gv0"] == [f"{node}:/bricks/gv0/brick" for node in NODES]
    assert found["gv1"] == [f"{node}:/bricks/{name}/brick" for name in ("gv1", "gv1b") for node in NODES]
    assert "bmv0" not in found


def test_what_is_not_declared_is_purged_only_where_that_is_asked_for() -> None:
    disks = {node: [{"volume": "gv0"}, {"volume": "gv1"}] for node in NODES}
    purges: list[dict[str, bool]] = [{}, {"options_purge": True}, {"bricks_purge": True}]
    for asked in purges:
        (found,) = gluster_volumes(disks, storage_volumes=[{"name": "gv0", **asked}])
        assert {**found, "options_purge": False, "bricks_purge": False, **asked} == found


def test_a_change_of_a_volume_takes_what_it_is_given() -> None:
    disks = {node: [{"volume": "gv0"}] for node in NODES}
    found = [gluster_volumes(disks, **limit)[0]["timeout"] for limit in ({}, {"storage_fill_wait": "86400"})]
    assert found == [3600, 86400]


def test_six_nodes_keep_the_sets_of_the_first_three() -> None:
    disks = [{"volume": "gv0"}, {"volume": "gv0", "name": "second"}]
    three = bricks({f"node{number}": disks for number in (1, 2, 3)})["gv0"]
    six = bricks({f"node{number}": disks for number in (1, 2, 3, 4, 5, 6)})["gv0"]
    sets = [set(six[start : start + 3]) for start in range(0, len(six), 3)]
    assert set(three[:3]) in sets and set(three[3:]) in sets and len(sets) == 4
    assert all(len({brick.split(":")[0] for brick in members}) == 3 for members in sets)


def test_a_name_that_is_a_part_of_another_is_not_taken_for_it() -> None:
    disks = [{"volume": "gv1"}, {"volume": "gv1", "name": "gv1b"}]
    for named in (["gv1b"], "gv1b"):
        text = render(
            "thin_volumes.yml.j2",
            __storage_disks=disks,
            __storage_volume_names=["gv1"],
            __storage_profile="p",
            storage_reset=named,
        )
        assert [volume["replaced"] for volume in yaml.safe_load(text)] == [False, True]
        template = (ROLE.parent / "encryption" / "templates" / "devices.yml.j2").read_text()
        environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
        environment.filters["to_json"] = json.dumps
        text = environment.from_string(template).render(
            encryption_disks=[{"device": "/dev/x", **disk} for disk in disks], encryption_replaced=named
        )
        assert [device["replaced"] for device in yaml.safe_load(text)] == [False, True]


def test_local_disks_are_mounted_beside_the_volumes() -> None:
    text = render(
        "thin_volumes.yml.j2",
        __storage_disks=[{"volume": "gv0"}, {"volume": "bmv0"}],
        __storage_volume_names=["gv0", "gv1"],
        __storage_profile="p",
    )
    brick, local = yaml.safe_load(text)
    assert (brick["device"], brick["mountpoint"]) == ("/dev/mapper/luks-gv0", "/bricks/gv0")
    assert "nofail" in brick["mount_options"] and "x-systemd.before=glusterd.service" in brick["mount_options"]
    assert (local["mountpoint"], local["mount_options"][-1]) == ("/srv/bmv0", "x-systemd.before=libvirtd.service")


def test_each_node_mounts_from_itself_and_knows_the_others_in_order() -> None:
    for node, others in {"node1": "node2:node3", "node3": "node1:node2"}.items():
        text = render("fstab.j2", storage_nodes=list(NODES), inventory_hostname=node)
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert [line.split()[:3] for line in lines] == [
            [f"{node}:/gv0", "/srv/gv0", "glusterfs"],
            [f"{node}:/gv1", "/srv/gv1", "glusterfs"],
        ]
        assert all(f"backup-volfile-servers={others}," in line and "_netdev" in line for line in lines)


def test_a_watch_over_a_mount_runs_the_program_as_it_is_now() -> None:
    units = yaml.safe_load(render("mounts.yml.j2", __storage_programs="/programs"))
    assert [unit["name"].split("@")[0] for unit in units] == [
        "personal-cluster-mount",
        "personal-cluster-mount-watch",
    ] * 2
    assert all("/programs/gluster-mount" in unit["restart_after"] for unit in units[1::2])


def test_names_with_a_dash_become_unit_names() -> None:
    disks = [{"volume": "gv1", "name": "gv1-b"}]
    rule = render("storage.rules.j2", __storage_disks=disks, __storage_volume_names=["gv1"])
    # systemd names the unit of a path by itself; of a name, systemd 252 takes the backslash out.
    assert 'ENV{SYSTEMD_WANTS}+="/bricks/gv1-b"' in rule and "\\" not in rule
    daemons = yaml.safe_load(render("daemons.yml.j2", __storage_brick_disks=disks, __storage_programs="/programs"))
    assert [daemon["name"] for daemon in daemons[-2:]] == [
        "personal-cluster-brick@bricks-gv1\\x2db.service",
        "personal-cluster-brick-watch@bricks-gv1\\x2db.service",
    ]
    assert "/programs/brick-join" in daemons[-1]["restart_after"]


def test_bricks_below_a_mountpoint_are_found_by_the_hosts_uuid() -> None:
    for release in ("10.3", "11.1"):
        info = ET.parse(RECORDED / release / "info.xml").getroot()
        uuid = next(brick.findtext("hostUuid") for brick in info.iter("brick"))
        assert brick_join.bricks_below(info, uuid, "/bricks/gv1") == {"gv1": ["/bricks/gv1/brick"]}
        # Volumes that were never started have bricks below it too.
        assert brick_join.bricks_below(info, uuid, "/bricks/gv0") == {"gv0": ["/bricks/gv0/brick"]}
        assert brick_join.bricks_below(info, "another", "/bricks/gv0") == {}
    assert brick_join.own_uuid("UUID=1-2\noperating-version=110000\n") == "1-2"


# What `volume heal V info --xml` says of a volume of one brick that has nothing to heal.
HEALED = (
    "<cliOutput><healInfo><bricks><brick><name>node1:/b</name><status>Connected</status>"
    "<numberOfEntries>0</numberOfEntries></brick></bricks></healInfo><opRet>0</opRet></cliOutput>"
)


class Gluster:
    """Answers brick-join; a brick runs once its volume was started with force."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, quorum_after: int = 0) -> None:
        self.asked: list[tuple[str, ...]] = []
        self.running: set[str] = set()
        self.mounted = True
        self.blank: set[str] = set()
        self.unhealed: list[ET.Element] = []
        self._quorum_after = quorum_after
        info = ET.parse(RECORDED / "11.1" / "info.xml").getroot()
        uuid = next(brick.findtext("hostUuid") for brick in info.iter("brick"))
        (tmp_path / "glusterd.info").write_text(f"UUID={uuid}\n")
        self._info = info
        clock = iter(range(0, 1_000_000, 10))
        monkeypatch.setattr(brick_join, "GLUSTERD_INFO", str(tmp_path / "glusterd.info"))
        monkeypatch.setattr(brick_join, "ask", self.ask)
        monkeypatch.setattr(brick_join, "running_bricks", lambda: self.running)
        monkeypatch.setattr(brick_join, "is_blank", lambda path: path in self.blank)
        monkeypatch.setattr("os.path.ismount", lambda _path: self.mounted)
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))

    def ask(self, *words: str) -> ET.Element:
        self.asked.append(words)
        if words == ("volume", "info"):
            return self._info
        if words[:2] == ("volume", "heal"):
            return self.unhealed.pop(0) if self.unhealed else ET.fromstring(HEALED)
        if self._quorum_after:
            self._quorum_after -= 1
            raise brick_join.GlusterError("quorum is not met")
        self.running.add("/bricks/gv0/brick")
        return self._info


START = ("volume", "start", "gv0", "force")


def test_a_late_brick_is_started_once_there_is_quorum(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path, quorum_after=2)
    assert brick_join.main("/bricks/gv0", 600) == 0
    assert cluster.asked.count(START) == 3 and cluster.running == {"/bricks/gv0/brick"}


def test_a_brick_that_runs_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    cluster.running.add("/bricks/gv0/brick")
    assert brick_join.main("/bricks/gv0", 600) == 0 and START not in cluster.asked


def test_a_blank_brick_waits_to_be_reset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    cluster.blank = {"/bricks/gv0/brick"}
    assert brick_join.main("/bricks/gv0", 600) == 0
    assert set(cluster.asked) == {("volume", "info")}
    assert "/bricks/gv0/brick of volume gv0 waits to be reset" in capsys.readouterr().out


def test_a_brick_without_the_id_of_a_volume_is_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brick_join, "VOLUME_ID", "user.volume-id")
    brick = tmp_path / "brick"
    assert brick_join.is_blank(str(brick))
    brick.mkdir()
    assert brick_join.is_blank(str(brick))
    os.setxattr(brick, "user.volume-id", b"1")
    assert not brick_join.is_blank(str(brick))
    for text, blank in ((BEGUN, True), (TOLD, False)):
        Noted(Brick("node1", str(brick), "u1"), text).act(Cli(Runner(), "", "", 0))
        assert brick_join.is_blank(str(brick)) is blank


def test_nothing_is_started_without_a_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    cluster.mounted = False
    assert brick_join.main("/bricks/gv0", 600) == 0 and cluster.asked == []
    assert brick_join.join("/bricks/gv0") and START not in cluster.asked


def test_a_brick_whose_process_died_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    brick = "/bricks/gv0/brick"
    began: list[tuple[str, float]] = []
    # It runs, is away for a moment, runs, has died, and runs again.
    looks: list[set[str]] = [{brick}, set(), {brick}, set(), set(), {brick}]

    def running() -> set[str]:
        if not looks:
            raise Over
        return looks.pop(0)

    def main(mountpoint: str, limit: float) -> int:
        began.append((mountpoint, limit))
        return 0

    monkeypatch.setattr(brick_join, "running_bricks", running)
    monkeypatch.setattr(brick_join, "main", main)
    with pytest.raises(Over):
        brick_join.watch("/bricks/gv0")
    assert began == [("/bricks/gv0", 0)]
    # While bricks run, gluster is not asked.
    assert cluster.asked == [("volume", "info")] * 3


def test_no_brick_is_missed_where_none_should_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    assert brick_join.is_lost("/bricks/gv0") and not brick_join.is_lost("/bricks/gv9")
    cluster.mounted = False
    assert not brick_join.is_lost("/bricks/gv0")
    cluster.mounted = True
    for status in cluster.ask("volume", "info").iter("status"):
        status.text = "2"
    assert not brick_join.is_lost("/bricks/gv0")


def test_it_gives_up_in_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cluster = Gluster(monkeypatch, tmp_path, quorum_after=10_000)
    assert brick_join.main("/bricks/gv0", 60) == 1 and START in cluster.asked


def test_a_name_that_a_power_cut_lost_is_looked_at_until_it_is_healed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster = Gluster(monkeypatch, tmp_path)
    cluster.running.add("/bricks/gv0/brick")
    waiting = ET.parse(RECORDED / "11.1" / "heal_names.xml").getroot()
    # First they may be on their way; what still waits at the second and third look is looked at by its name.
    cluster.unhealed = [waiting, waiting, waiting]
    done: list[tuple[str, set[str]] | str] = []
    monkeypatch.setattr(brick_join, "look_at", lambda volume, names: done.append((volume, names)))
    monkeypatch.setattr(brick_join, "heal", done.append)
    assert brick_join.main("/bricks/gv0", 600) == 0
    names = {"/fresh-probe", *(f"/images/g{number}-vda.img" for number in (1, 2, 3))}
    # The look makes the file, and the daemon, which looks again only every ten minutes, fills it when told to.
    assert done == [("gv0", names), "gv0", ("gv0", names), "gv0"]


@pytest.mark.parametrize(("code", "problem"), [(0, ""), (1, "gluster volume heal gv0: Commit failed on node2")])
def test_the_daemon_is_told_in_plain_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int, problem: str
) -> None:
    heard, cli = tmp_path / "heard", tmp_path / "gluster"
    cli.write_text(f'#!/bin/sh\necho "$@" > {heard}\necho Commit failed on node2 >&2\nexit {code}\n')
    cli.chmod(0o755)
    monkeypatch.setattr(brick_join, "CLI", (str(cli),))
    try:
        brick_join.heal("gv0")
    except brick_join.GlusterError as error:
        assert str(error) == problem
    else:
        assert not problem
    assert heard.read_text() == "volume heal gv0\n"


def test_a_brick_that_is_away_is_not_healed() -> None:
    answer = ET.parse(RECORDED / "11.1" / "heal_names.xml").getroot()
    for brick in answer.findall("healInfo/bricks/brick")[:2]:
        for file in brick.findall("file"):
            brick.remove(file)
        count = brick.find("numberOfEntries")
        assert count is not None
        count.text = "0"
    assert brick_join.waiting(answer) == (True, set())
    assert brick_join.waiting(ET.fromstring(HEALED)) == (False, set())


def test_the_mount_of_a_volume_is_found() -> None:
    mounts = (
        "/dev/mapper/a /srv/bmv0 xfs rw 0 0\n"
        "localhost:/gv1 /srv/gv1 fuse.glusterfs rw,allow_other 0 0\n"
        "localhost:/gv0 /srv/gv0 fuse.glusterfs rw,allow_other 0 0\n"
    )
    assert brick_join.mountpoint_of("gv0", mounts) == "/srv/gv0" and brick_join.mountpoint_of("gv", mounts) == ""


class Mount:
    """A mountpoint that can be mounted after some attempts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, fails: int = 0, dead: bool = False) -> None:
        self.asked: list[str] = []
        self.words: list[str] = []
        self.there = self.dead = dead
        self.client = self.busy = False
        self._fails = fails
        clock = iter(range(0, 1_000_000, 10))
        monkeypatch.setattr(gluster_mount, "run", self.run)
        monkeypatch.setattr(gluster_mount, "mounted", lambda _path: self.there)
        monkeypatch.setattr(gluster_mount, "has_client", lambda _path: self.client)
        monkeypatch.setattr(gluster_mount, "make_bare", lambda _path: self.asked.append("make_bare"))
        monkeypatch.setattr(gluster_mount, "alone", lambda _path: nullcontext())
        monkeypatch.setattr("time.sleep", lambda _seconds: None)
        monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))

    def run(self, argv: list[str], _limit: float) -> str:
        self.asked.append(argv[0])
        self.words += argv
        if argv[0] == "stat":
            return "not connected" if self.dead else ""
        if argv[0] == "umount" and self.busy:
            return "target is busy"
        if argv[0] == "mount" and self._fails:
            self._fails -= 1
            return "no quorum"
        self.there, self.dead = argv[0] == "mount", False
        return ""


def test_a_mount_is_tried_until_there_is_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, fails=3)
    assert gluster_mount.main("/srv/gv0", 300) == 0
    assert mount.asked.count("mount") == 4 and mount.asked[-1] == "stat" and mount.there


def test_a_dead_mount_is_replaced_and_a_live_one_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = Mount(monkeypatch, dead=True)
    assert gluster_mount.main("/srv/gv0", 300) == 0
    assert mount.asked == ["stat", "umount", "make_bare", "mount", "stat"]
    mount.asked.clear()
    assert gluster_mount.main("/srv/gv0", 300) == 0 and mount.asked == ["stat"]


@pytest.mark.parametrize(
    ("busy", "asked"), [(True, ["stat", "umount"]), (False, ["stat", "umount", "make_bare", "mount", "stat"])]
)
def test_a_client_that_lives_is_not_taken_from_those_who_use_it(
    monkeypatch: pytest.MonkeyPatch, busy: bool, asked: list[str]
) -> None:
    """Without quorum it does not answer either; what was unmounted lazily is out of reach for good."""
    mount = Mount(monkeypatch, dead=True)
    mount.client, mount.busy = True, busy
    problem = gluster_mount.attempt("/srv/gv0")
    assert mount.asked == asked and "--lazy" not in mount.words
    assert problem == ("it does not answer, and is in use: target is busy" if busy else "")


def test_a_mount_gives_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    Mount(monkeypatch, fails=10_000)
    assert gluster_mount.main("/srv/gv0", 60) == 1


def test_two_that_mount_do_not_disturb_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At a slow boot the unit that mounts and the one that watches are at work on the same volume."""
    alone = gluster_mount.alone
    mount = Mount(monkeypatch)
    monkeypatch.setattr(gluster_mount, "alone", alone)
    monkeypatch.setattr(gluster_mount, "LOCKS", str(tmp_path))
    begun = threading.Event()

    def slow(argv: list[str], limit: float) -> str:
        if argv[0] == "mount":
            # Listed at once, connected a while later.
            mount.there, mount.dead = True, True
            begun.set()
            time_to_connect.wait(0.3)
        return mount.run(argv, limit)

    time_to_connect = threading.Event()
    monkeypatch.setattr(gluster_mount, "run", slow)
    other = threading.Thread(target=gluster_mount.attempt, args=("/srv/gv0",))
    other.start()
    assert begun.wait(10) and gluster_mount.attempt("/srv/gv0") == ""
    other.join()
    assert mount.asked.count("mount") == 1 and "umount" not in mount.asked


class Over(Exception):
    """Ends what would go on for ever."""


def test_a_mount_is_watched_and_only_a_dead_one_mounted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    died = [False, True, False]
    made: list[str] = []

    def is_dead(_mountpoint: str) -> bool:
        if not died:
            raise Over
        return died.pop(0)

    def main(mountpoint: str, _limit: float) -> int:
        made.append(mountpoint)
        return 0

    monkeypatch.setattr(gluster_mount, "is_dead", is_dead)
    monkeypatch.setattr(gluster_mount, "main", main)
    monkeypatch.setattr("time.sleep", lambda _seconds: made.append("slept"))
    with pytest.raises(Over):
        gluster_mount.watch("/srv/gv0")
    assert made == ["slept", "/srv/gv0", "slept", "slept"]


@pytest.mark.parametrize(("number", "dead"), [(errno.ENOTCONN, True), (errno.ENOENT, False), (errno.EIO, False)])
def test_what_is_not_connected_is_dead(monkeypatch: pytest.MonkeyPatch, number: int, dead: bool) -> None:
    def statvfs(_path: str) -> None:
        raise OSError(number, "")

    assert not gluster_mount.is_dead("/")
    monkeypatch.setattr("os.statvfs", statvfs)
    assert gluster_mount.is_dead("/srv/gv0") is dead
    # Without quorum, a client that lives says the same.
    monkeypatch.setattr(gluster_mount, "has_client", lambda _mountpoint: True)
    assert not gluster_mount.is_dead("/srv/gv0")


def test_the_client_of_a_mount_is_found() -> None:
    wait = "import time; print(flush=True); time.sleep(30)"
    for name, found in (("glusterfs", True), ("/usr/sbin/glusterfs", True), ("glusterfsd", False)):
        argv = [name, "-c", wait, "--volfile-id=gv0", "/srv/of-a-test"]
        with subprocess.Popen(argv, executable=sys.executable, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None and process.stdout.readline()
            assert gluster_mount.has_client("/srv/of-a-test") is found
            assert not gluster_mount.has_client("/srv/of-another")
            process.kill()


def test_mounted_means_listed() -> None:
    mounts = "/dev/vda / ext4 rw 0 0\nlocalhost:/gv0 /srv/gv0 fuse.glusterfs rw 0 0\n"
    assert gluster_mount.is_mounted("/srv/gv0", mounts) and not gluster_mount.is_mounted("/srv/gv1", mounts)


def test_the_stand_in_for_geo_replication_says_what_glusterd_insists_on() -> None:
    stand_in = ROLE / "files" / "no_georeplication.sh"

    def said(*words: str) -> tuple[int, str]:
        done = subprocess.run(["sh", stand_in, "gsyncd.py", *words], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    assert said("--version") == (0, "gsyncd\n")
    assert said("-c", "gsyncd.conf", "--config-set-rx", "remote-gsyncd", "x") == (0, "")
    unit = render("glusterd.service.j2", __storage_programs="/p")
    assert "Environment=PYTHON=/p/no-georeplication\n" in unit
    assert "PYTHON" not in render("glusterd.service.j2", __storage_programs="/p", storage_georeplication=True)


@pytest.mark.parametrize(
    ("views", "says"),
    [
        ({"node2": "Connected", "node3": "Connected"}, ""),
        ({"node2": "Connected", "node3": "Disconnected"}, "node3 is not connected to node1\n"),
        ({"node2": "", "node3": "Connected"}, "glusterd of node2 does not answer: no luck\n"),
        ({}, ""),
    ],
)
def test_glusterd_is_restarted_when_all_others_see_each_other(tmp_path: Path, views: dict[str, str], says: str) -> None:
    (tmp_path / "peers").mkdir()
    for name, state in views.items():
        (tmp_path / "peers" / f"uuid-{name}").write_text(
            f"uuid=uuid-{name}\nstate=3\nhostname1={name}\nhostname2={name}.lan\n"
        )
        (tmp_path / name).write_text(
            f"UUID\tHostname \tState\nu1\tnode1 \t{state}\nu0\tlocalhost \tConnected\n" if state else ""
        )
    stand_in = tmp_path / "gluster"
    stand_in.write_text(
        f"#!/bin/sh\ntest -s {tmp_path}/${{2#*=}} || {{ echo no luck >&2; exit 1; }}\ncat {tmp_path}/${{2#*=}}\n"
    )
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PEERS": str(tmp_path / "peers")}
    argv = ["sh", str(ROLE / "files" / "peers_connected.sh")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1 if says else 0, says)


def test_glusterd_requires_no_brick_and_closes_no_circle() -> None:
    unit = (ROLE / "templates" / "glusterd.service.j2").read_text()
    settings = [line for line in unit.splitlines() if not line.startswith("#")]
    assert not any(line.startswith(("Requires", "BindsTo", "Before")) for line in settings)
    assert "KillMode=process" in settings
