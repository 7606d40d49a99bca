# SPDX-License-Identifier: GPL-3.0-or-later
"""gluster_peer and gluster_volume against three real glusterds on 127.1.1.1 to 127.1.1.3 of this machine."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.personal.cluster.plugins.filter.bricks import brick_copies, brick_differences, brick_verdict
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.healers import Healers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_lost_healers
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
from glusterds import (
    HOSTS,
    Glusterds,
    both,
    files,
    gate,
    kill_brick,
    mounted,
    peers,
    read_back,
    refused,
    start_bricks,
    volumes,
    wait_until,
)
from harness import direct, needs, run_module

VIRT_OPTIONS = 27

needs("glusterd")


@pytest.fixture(scope="module")
def glusterds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Glusterds]:
    cluster = Glusterds(tmp_path_factory.mktemp("g"))
    try:
        cluster.begin()
        yield cluster
    finally:
        cluster.end()


def gv0(cluster: Glusterds, **more: Any) -> dict[str, Any]:
    options = {"storage.owner-uid": 64055, "features.shard-block-size": "64MB", **more.pop("options", {})}
    return {"name": "gv0", "bricks": cluster.bricks("gv0"), "group": "virt", "options": options, **more}


def gv1(cluster: Glusterds, *names: str, **more: Any) -> dict[str, Any]:
    return {"name": "gv1", "bricks": cluster.bricks(*names), "options": {"cluster.quorum-type": "auto"}, **more}


def test_hosts_join_the_pool(glusterds: Glusterds) -> None:
    done = both(lambda *, check=False: peers(glusterds, check=check))
    assert done["actions"] == ["add 127.1.1.2 to the pool", "add 127.1.1.3 to the pool"]
    assert glusterds.xml("pool", "list").count("<connected>1") == 3


def test_unsafe_volumes_are_not_created(glusterds: Glusterds) -> None:
    two = {"name": "bad", "replica": 2, "bricks": glusterds.bricks("bad")[:2]}
    refused(glusterds, two, "two copies split-brain")
    refused(glusterds, {"name": "bad", "bricks": glusterds.bricks("bad")[:2]}, "2 bricks do not make sets of 3")
    one_host = [{"host": HOSTS[0], "path": glusterds.brick(1, name)} for name in ("x", "y", "z")]
    refused(glusterds, {"name": "bad", "bricks": one_host}, "two bricks on one host")
    stranger = [*glusterds.bricks("bad")[:2], {"host": "127.1.1.9", "path": "/bricks/bad/brick"}]
    refused(glusterds, {"name": "bad", "bricks": stranger}, "127.1.1.9 not in the pool")
    refused(glusterds, {"name": "bad", "bricks": glusterds.bricks("bad"), "group": "nope"}, "no option group nope")


def test_volumes_are_created_with_their_options_and_started(glusterds: Glusterds) -> None:
    items = gv0(glusterds), gv1(glusterds, "gv1a")
    done = both(lambda *, check=False: volumes(glusterds, *items, check=check, run=run_module))
    assert [action.split(" (")[0] for action in done["actions"]] == [
        "create volume gv0",
        "set on volume gv0: group virt, storage.owner-uid=64055, features.shard-block-size=64MB",
        "start volume gv0",
        "create volume gv1",
        "set on volume gv1: cluster.quorum-type=auto",
        "start volume gv1",
    ]
    shown = done["volumes"]["gv0"]
    assert shown["state"] == "started" and shown["layout"] == "replica 3"
    assert len(shown["options"]) >= VIRT_OPTIONS and shown["options"]["features.shard"] == "on"


def test_drift_is_shown_and_mended(glusterds: Glusterds) -> None:
    glusterds.xml("volume", "set", "gv0", "network.ping-timeout", "42")
    done = both(lambda *, check=False: volumes(glusterds, gv0(glusterds), check=check))
    assert done["actions"] == ["set on volume gv0: network.ping-timeout=20 (was 42)"]
    assert done["diff"]["before"]["volumes"]["gv0"]["options"]["network.ping-timeout"] == "42"


def test_other_spellings_are_no_change(glusterds: Glusterds) -> None:
    spelled = gv0(glusterds, options={"features.shard-block-size": 64 << 20, "features.shard": True})
    assert not volumes(glusterds, spelled)["changed"]


def test_what_damages_or_cuts_off_is_refused(glusterds: Glusterds) -> None:
    refused(glusterds, gv0(glusterds, options={"features.shard": False}), "features.shard", "make a new volume")
    block = gv0(glusterds, options={"features.shard-block-size": "128MB"})
    refused(glusterds, block, "features.shard-block-size", "make a new volume")
    unsharded = gv0(glusterds, group=None, options={"storage.owner-uid": 64055}, options_purge=True)
    refused(glusterds, unsharded, "changing features.shard")
    refused(glusterds, gv0(glusterds, options={"client.ssl": True}), "stop the volume first")
    refused(glusterds, gv0(glusterds, state="absent"), "allow: [delete]")
    refused(glusterds, gv0(glusterds, options={"quick-read": "off"}), "full name")
    other_set = glusterds.bricks("other")
    refused(glusterds, {"name": "gv0", "bricks": other_set}, "bricks that are not declared")
    dispersed = {"name": "gv0", "bricks": glusterds.bricks("gv0"), "disperse": 3, "redundancy": 1}
    refused(glusterds, dispersed, "cannot become disperse 3 redundancy 1 in place")


def test_bricks_are_added_only_to_a_healthy_volume(glusterds: Glusterds) -> None:
    wanted = gv1(glusterds, "gv1a", "gv1b")
    glusterds.stop(3)
    wait_until(lambda: "<connected>0" in glusterds.xml("pool", "list"), "the peer is seen as lost")
    refused(glusterds, wanted, "peer 127.1.1.3 is not connected", "is offline")
    glusterds.start(3)
    wait_until(lambda: "<connected>0" not in glusterds.xml("pool", "list"), "the peer is back")
    see_healers(glusterds, 3)
    glusterds.xml("volume", "start", "gv1", "force")
    wait_until(lambda: glusterds.xml("volume", "status", "gv1").count("<status>1") == 6, "bricks and healers run")
    wait_until(lambda: healed(glusterds), "nothing waits to be healed")
    done = both(lambda *, check=False: volumes(glusterds, wanted, check=check))
    assert done["actions"][0].startswith("add bricks to volume gv1: 127.1.1.1:")
    assert "rebalance" in str(done["warnings"])
    assert "<typeStr>Distributed-Replicate" in glusterds.xml("volume", "info", "gv1")


def asking(cluster: Glusterds, number: int) -> tuple[Cli, str]:
    """Return the command line that asks one of the glusterds, and its UUID."""
    home = cluster.top / str(number)
    known = dict(line.split("=", 1) for line in (home / "wd" / "glusterd.info").read_text().splitlines())
    return Cli(Runner(), str(home / "wd"), str(home / "run" / "glusterd.sock"), 60), known["UUID"]


def see_healers(cluster: Glusterds, number: int) -> None:
    """Wait until a glusterd that was started knows the self-heal daemon of its host, which it may lose at once."""
    cli, uuid = asking(cluster, number)
    healers = Healers(uuid)

    def all_run() -> bool:
        time.sleep(2)
        return healers.run(cli)

    wait_until(all_run, "every volume has its self-heal daemon")


def healed(cluster: Glusterds) -> bool:
    summary = cluster.xml("volume", "heal", "gv1", "info", "summary")
    return summary.count("<totalNumberOfEntries>0<") == 3


def test_the_gate_is_open_when_all_is_well_and_shut_when_a_host_is_gone(glusterds: Glusterds) -> None:
    opened = gate(glusterds)
    assert opened["healthy"] and opened["looks"] >= 3 and not opened["changed"], opened
    told = direct("gluster_volume_info", {**glusterds.params()})["volumes"]["gv1"]
    assert told["healed"] and all(brick["online"] and brick["entries"] == 0 for brick in told["bricks"])
    glusterds.stop(3)
    wait_until(lambda: "<connected>0" in glusterds.xml("pool", "list"), "the peer is seen as lost")
    shut = gate(glusterds, timeout=3)
    for why in ("peer 127.1.1.3 is not connected", "2 of 3 peers", "self-heal daemon on 127.1.1.3", "is offline"):
        assert why in shut["msg"]
    checked = direct("gluster_heal", {"volumes": ["gv1"], **glusterds.params(), "timeout": 60}, check=True)
    assert not checked.get("failed") and not checked["healthy"] and checked["looks"] == 1
    told = direct("gluster_peer_info", glusterds.params())["peers"]
    assert [told[name]["connected"] for name in ("localhost", *HOSTS[1:])] == [True, True, False]
    glusterds.start(3)
    wait_until(lambda: "<connected>0" not in glusterds.xml("pool", "list"), "the peer is back")
    see_healers(glusterds, 3)
    assert gate(glusterds)["healthy"]


def test_no_bricks_are_added_while_something_waits_to_be_healed(glusterds: Glusterds) -> None:
    wanted = gv1(glusterds, "gv1a", "gv1b", "gv1c")
    glusterds.xml("volume", "set", "gv1", "cluster.self-heal-daemon", "off", "cluster.quorum-type", "none")
    try:
        for dead, text in (((1,), "without the first"), ((2, 3), "with the first alone")):
            for number in dead:
                kill_brick(glusterds, number, "gv1")
            with mounted(glusterds, "gv1") as top:
                (top / "torn").write_text(text)
            start_bricks(glusterds)
            refused(glusterds, wanted, "to be healed" if dead == (1,) else "split-brain")
            assert gate(glusterds, timeout=3).get("failed")
    finally:
        glusterds.xml("volume", "set", "gv1", "cluster.quorum-type", "auto")
        glusterds.xml("volume", "reset", "gv1", "cluster.self-heal-daemon")
    glusterds.xml("volume", "heal", "gv1", "split-brain", "latest-mtime", "/torn")
    with mounted(glusterds, "gv1") as top:
        assert (top / "torn").read_text() == "with the first alone"
        (top / "torn").unlink()
    assert gate(glusterds)["healthy"]


def test_the_order_of_bricks_within_a_set_is_no_change(glusterds: Glusterds) -> None:
    wanted = gv1(glusterds, "gv1a", "gv1b")
    wanted["bricks"] = [*reversed(wanted["bricks"][:3]), *wanted["bricks"][3:]]
    assert not volumes(glusterds, wanted)["changed"]
    wanted["bricks"][2], wanted["bricks"][3] = wanted["bricks"][3], wanted["bricks"][2]
    refused(glusterds, wanted, "sets cannot be regrouped")


def test_a_byte_that_only_one_brick_has_is_found(glusterds: Glusterds) -> None:
    with mounted(glusterds, "gv1") as top:
        (top / "compared").mkdir()
        (top / "compared" / "file").write_text("right")
    volume = direct("gluster_volume_info", {"heal": False, **glusterds.params()})["volumes"]
    bricks = [glusterds.brick(2, name) for name in ("gv1a", "gv1b")]
    pairs = brick_copies(volume, HOSTS[1], bricks)
    assert [pair["copy"][0] for pair in pairs] == [HOSTS[0]] * 2

    def look(only: Optional[list[str]] = None) -> dict[str, Any]:
        here = {HOSTS[0]: [glusterds.brick(1, name) for name in ("gv1a", "gv1b")], HOSTS[1]: bricks}
        more = {} if only is None else {"only": only}
        return {host: direct("gluster_brick_info", {"bricks": own, **more})["bricks"] for host, own in here.items()}

    first = look()
    told = brick_verdict(pairs, [first, *(look(brick_differences(pairs, first)) for _ in "23")])
    assert told["different"] == [] and told["busy"] == [] and told["same"] >= 2
    (place,) = (Path(brick) / "compared" / "file" for brick in bricks if (Path(brick) / "compared" / "file").exists())
    kept = place.stat()
    place.write_text("wrong")
    os.utime(place, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    first = look()
    assert brick_differences(pairs, first) == ["compared/file"]
    (sentence,) = brick_verdict(pairs, [first, *(look(["compared/file"]) for _ in "23")])["different"]
    assert sentence.startswith(f"compared/file on {HOSTS[1]}:") and f"and on {HOSTS[0]}:" in sentence
    place.write_text("right")
    assert brick_differences(pairs, look()) == []
    with mounted(glusterds, "gv1") as top:
        shutil.rmtree(top / "compared")


def test_new_bricks_are_balanced_and_taken_out_again_with_their_data(glusterds: Glusterds) -> None:
    files(glusterds, "gv1", 40)
    # The second set was added by an earlier test, which asked for no rebalance.
    done = both(
        lambda *, check=False: volumes(glusterds, gv1(glusterds, "gv1a", "gv1b", rebalance="full"), check=check)
    )
    assert done["actions"] == ["rebalance volume gv1 (full)"]
    brick = Path(glusterds.brick(1, "gv1b"))
    assert [path for path in brick.iterdir() if path.name.startswith("file") and path.stat().st_size]
    one_set = gv1(glusterds, "gv1a")
    refused(glusterds, one_set, "set bricks_purge")
    refused(glusterds, {**one_set, "bricks_purge": True}, "allow: [shrink] permits it")
    shrunk = {**one_set, "bricks_purge": True, "allow": ["shrink"]}
    half = {**shrunk, "bricks": [*one_set["bricks"], *glusterds.bricks("gv1b")[:2], *glusterds.bricks("gv1c")[2:]]}
    refused(glusterds, half, "only whole sets")
    started = volumes(glusterds, {**shrunk, "wait": False})
    assert not started.get("failed"), started["msg"]
    assert [action.split(" gv1")[0] for action in started["actions"]] == ["move the data of volume"]
    refused(glusterds, gv1(glusterds, "gv1a", "gv1b", "gv1c"), "a Remove brick ")
    done = both(lambda *, check=False: volumes(glusterds, shrunk, check=check))
    assert done["actions"][0].startswith("take out of volume gv1: 127.1.1.1:")
    assert "gv1b" not in glusterds.xml("volume", "info", "gv1")
    read_back(glusterds, "gv1", 40)


def test_options_that_nobody_declares_are_reset_when_asked(glusterds: Glusterds) -> None:
    glusterds.xml("volume", "set", "gv1", "network.ping-timeout", "30", "performance.readdir-ahead", "on")
    glusterds.xml("volume", "set", "gv1", "user.mine", "1")
    glusterds.xml("volume", "set", "all", "cluster.server-quorum-ratio", "51")
    kept = volumes(glusterds, gv1(glusterds, "gv1a"))
    # A self-heal daemon that crashed while the options were set is started anew, and rightly.
    assert not [action for action in kept["actions"] if not action.startswith("start the self-heal daemon")]
    done = both(lambda *, check=False: volumes(glusterds, gv1(glusterds, "gv1a", options_purge=True), check=check))
    assert done["actions"] == [
        "reset on volume gv1: performance.readdir-ahead (was on), network.ping-timeout (was 30)"
    ] or done["actions"] == ["reset on volume gv1: network.ping-timeout (was 30), performance.readdir-ahead (was on)"]
    left = done["volumes"]["gv1"]["options"]
    assert left["user.mine"] == "1" and left["cluster.server-quorum-ratio"] == "51" and left["nfs.disable"] == "on"


def replacing(cluster: Glusterds, old: str, new: str, **more: Any) -> dict[str, Any]:
    """Replace the brick of the first host."""
    to = {"host": HOSTS[0], "path": cluster.brick(1, new)}
    pair = {"from": {"host": HOSTS[0], "path": cluster.brick(1, old)}, "to": to}
    return gv1(cluster, "gv1a", **{"bricks": [to, *cluster.bricks("gv1a")[1:]], "replace": [pair], **more})


@pytest.mark.long
def test_a_brick_is_replaced_by_a_new_one_that_is_filled(glusterds: Glusterds, tmp_path: Path) -> None:
    assert gate(glusterds)["healthy"]
    wanted = replacing(glusterds, "gv1a", "gv1n")
    to = wanted["replace"][0]["to"]
    on_root = {"host": HOSTS[0], "path": str(tmp_path / "brick")}
    for place, why in (
        (on_root, "lies on the root filesystem"),
        ({"host": HOSTS[0], "path": str(glusterds.disk(1))}, "is a mount point itself"),
        ({"host": HOSTS[0], "path": str(glusterds.disk(1) / "no" / "brick")}, "mount its filesystem first"),
        ({"host": HOSTS[0], "path": glusterds.brick(1, "gv1b")}, "carries the id of"),
    ):
        bad = {**wanted, "bricks": [place, *wanted["bricks"][1:]]}
        refused(glusterds, {**bad, "replace": [{**wanted["replace"][0], "to": place}]}, why)
    new = glusterds.bricks("gv1n")
    pairs = [{"from": old, "to": to} for old, to in zip(glusterds.bricks("gv1a")[:2], new[:2], strict=True)]
    refused(
        glusterds,
        {**wanted, "bricks": [*new[:2], glusterds.bricks("gv1a")[2]], "replace": pairs},
        "are of one set; one after the other",
        "is not on this host; run on 127.1.1.2",
    )
    kill_brick(glusterds, 2, "gv1")
    refused(glusterds, wanted, "runs, and may be what the others heal from", "127.1.1.2:", "is offline")
    files(glusterds, "gv1", 41)
    glusterds.xml("volume", "start", "gv1", "force")
    assert gate(glusterds)["healthy"]
    done = both(lambda *, check=False: volumes(glusterds, wanted, check=check))
    assert done["actions"][0].startswith("replace brick 127.1.1.1:") and to["path"] in str(done["volumes"])
    passed = gate(glusterds)
    assert passed.get("healthy"), passed
    assert (Path(to["path"]) / "file40").read_text() == "40\n" * 1000


@pytest.mark.long
def test_a_brick_that_lost_its_disk_is_reset_and_filled(glusterds: Glusterds) -> None:
    wanted = replacing(glusterds, "gv1a", "gv1n", replace=[], reset=glusterds.bricks("gv1n")[:1])
    assert not volumes(glusterds, wanted)["changed"]
    kill_brick(glusterds, 1, "gv1")
    done = both(lambda *, check=False: volumes(glusterds, wanted, check=check))
    assert "which has its data and needs no reset" in done["actions"][0]
    kill_brick(glusterds, 1, "gv1")
    shutil.rmtree(glusterds.brick(1, "gv1n"))
    files(glusterds, "gv1", 42)
    kill_brick(glusterds, 2, "gv1")
    refused(glusterds, wanted, "is dead and is not reset while brick 127.1.1.2:")
    glusterds.xml("volume", "start", "gv1", "force")
    wait_until(lambda: gv1_online(glusterds, HOSTS[1]), "the second brick runs")
    if gv1_online(glusterds, HOSTS[0]):
        kill_brick(glusterds, 1, "gv1")
        shutil.rmtree(glusterds.brick(1, "gv1n"))
    done = both(lambda *, check=False: volumes(glusterds, wanted, check=check))
    assert done["actions"][0].startswith("reset brick 127.1.1.1:")
    assert gate(glusterds)["healthy"]
    assert (Path(glusterds.brick(1, "gv1n")) / "file41").read_text() == "41\n" * 1000


def test_a_file_that_was_open_all_the_while_is_written_to_a_reset_brick(glusterds: Glusterds) -> None:
    volume = {"name": "opn", "bricks": glusterds.bricks("opn"), "options": {"cluster.quorum-type": "auto"}}
    both(lambda *, check=False: volumes(glusterds, volume, check=check))
    brick = Path(glusterds.brick(1, "opn"))
    over = threading.Event()
    written: list[int] = []

    def write(stream: io.FileIO) -> None:
        while not over.wait(0.3):
            stream.seek(0)
            stream.write(b"%08d" % len(written))
            os.fsync(stream.fileno())
            written.append(len(written))

    def goes_on(sentence: str, count: int = 4) -> int:
        before = len(written)
        wait_until(lambda: len(written) > before + count, sentence)
        return before

    with mounted(glusterds, "opn") as top, (top / "open").open("wb", buffering=0) as stream:
        # QEMU locks parts of its images.
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 100)
        writer = threading.Thread(target=write, args=(stream,))
        writer.start()
        try:
            goes_on("the writer writes")
            kill_brick(glusterds, 1, "opn")
            shutil.rmtree(brick)
            goes_on("the writer goes on without the brick")
            lost = {**volume, "reset": glusterds.bricks("opn")[:1]}
            done = both(lambda *, check=False: volumes(glusterds, lost, check=check))
            assert [action.split(" 127.1.1.1:")[0] for action in done["actions"]] == ["reset brick", "start brick"]
            before = goes_on("the client connects again")
            wait_until(
                lambda: int((brick / "open").read_bytes() or 0) > before, "the client has opened the file again", 30
            )
            # Not by the healing that goes on meanwhile: each write is there at once.
            for _ in range(8):
                before = goes_on("the writer goes on")
                assert int((brick / "open").read_bytes()) >= before
        finally:
            over.set()
            writer.join()
    assert gate(glusterds, volumes=["opn"])["healthy"]
    assert list(brick.parent.glob(".personal-cluster-*")) == []


def gv1_online(cluster: Glusterds, host: str) -> bool:
    told = direct("gluster_volume_info", {**cluster.params(), "volumes": ["gv1"], "heal": False})
    return any(brick["online"] for brick in told["volumes"]["gv1"]["bricks"] if brick["host"] == host)


def test_a_sharded_volume_is_not_shrunk_or_balanced(glusterds: Glusterds) -> None:
    two = gv0(glusterds, bricks=glusterds.bricks("gv0", "gv0b"))
    refused(glusterds, {**two, "rebalance": "full"}, "moving shards under running guests")
    refused(glusterds, two, "adding bricks below running guests has damaged their disks", "run playbooks/add_nodes.yml")
    two["allow"] = ["grow"]
    both(lambda *, check=False: volumes(glusterds, two, check=check))
    one = gv0(glusterds, bricks_purge=True, allow=["shrink"])
    refused(glusterds, one, "moving the shards of a volume")


def test_new_bricks_on_the_root_filesystem_are_refused_before_gluster_is_asked(
    glusterds: Glusterds, tmp_path: Path
) -> None:
    bricks = [{"host": host, "path": str(tmp_path / f"brick{number}")} for number, host in enumerate(HOSTS)]
    refused(glusterds, {"name": "bad", "bricks": bricks}, "lies on the root filesystem")
    disks = [{"host": host, "path": str(glusterds.disk(number + 1))} for number, host in enumerate(HOSTS)]
    refused(glusterds, {"name": "bad", "bricks": disks}, "is a mount point itself")


def test_copies_are_raised_when_allowed(glusterds: Glusterds) -> None:
    two = {"name": "two", "replica": 2, "bricks": glusterds.bricks("two")[:2], "allow": ["replica_change"]}
    both(lambda *, check=False: volumes(glusterds, two, check=check))
    three = {"name": "two", "replica": 3, "bricks": glusterds.bricks("two")}
    refused(glusterds, three, "allow: [replica_change]")
    done = both(lambda *, check=False: volumes(glusterds, {**three, "allow": ["replica_change"]}, check=check))
    assert done["volumes"]["two"]["layout"] == "replica 3"


def test_sets_are_added_to_a_volume_with_an_arbiter_and_to_one_without_copies(glusterds: Glusterds) -> None:
    arbiter: dict[str, Any] = {"name": "arb2", "arbiter": 1, "bricks": glusterds.bricks("arb2")}
    single = {"name": "one", "replica": 1, "bricks": glusterds.bricks("one")[:1], "allow": ["replica_change"]}
    both(lambda *, check=False: volumes(glusterds, arbiter, single, check=check))
    assert gate(glusterds, volumes=["arb2", "one"])["healthy"]
    arbiter["bricks"] += glusterds.bricks("arb2b")
    single = {**single, "bricks": glusterds.bricks("one")[:2], "rebalance": "fix-layout"}
    done = both(lambda *, check=False: volumes(glusterds, arbiter, single, check=check))
    assert done["volumes"]["arb2"]["layout"] == "replica 3 arbiter 1" and len(done["volumes"]["arb2"]["bricks"]) == 6
    assert glusterds.xml("volume", "info", "arb2").count("<isArbiter>1") == 2
    shrunk = {**single, "bricks": glusterds.bricks("one")[:1], "bricks_purge": True}
    shrunk["allow"] = ["replica_change", "shrink"]
    both(lambda *, check=False: volumes(glusterds, shrunk, check=check))


def dead_fragments(cluster: Glusterds, volume: dict[str, Any]) -> None:
    """See that the first brick of a dispersed volume may go when it is dead, but not when the second lacks data."""
    name, switch = volume["name"], "cluster.disperse-self-heal-daemon"
    to = {"host": HOSTS[0], "path": cluster.brick(1, f"{name}n")}
    swap = {"from": volume["bricks"][0], "to": to}
    wanted = {**volume, "bricks": [to, *volume["bricks"][1:]], "replace": [swap]}
    cluster.xml("volume", "set", name, switch, "off")
    kill_brick(cluster, 2, name)
    files(cluster, name, 1)
    start_bricks(cluster, name)
    kill_brick(cluster, 1, name)
    refused(cluster, wanted, "have too little good data left on 127.1.1.2:")
    start_bricks(cluster, name)
    cluster.xml("volume", "reset", name, switch)
    assert gate(cluster, volumes=[name])["healthy"]
    kill_brick(cluster, 1, name)
    files(cluster, name, 2)
    planned = volumes(cluster, wanted, check=True)
    assert not planned.get("failed"), planned["msg"]
    assert planned["actions"][0].startswith(f"replace brick {HOSTS[0]}:")
    start_bricks(cluster, name)
    assert gate(cluster, volumes=[name])["healthy"]


def test_a_set_is_added_to_a_dispersed_volume(glusterds: Glusterds) -> None:
    names = ("disp2", "disp2b")
    one = {"name": "disp2", "disperse": 3, "redundancy": 1, "bricks": glusterds.bricks(names[0])}
    both(lambda *, check=False: volumes(glusterds, one, check=check))
    assert gate(glusterds, volumes=["disp2"])["healthy"]
    dead_fragments(glusterds, one)
    two = {**one, "bricks": glusterds.bricks(*names)}
    done = both(lambda *, check=False: volumes(glusterds, two, check=check))
    assert len(done["volumes"]["disp2"]["bricks"]) == 6


def contents(cluster: Glusterds, volume: str) -> dict[str, Any]:
    """Return what is told of the bricks of a volume that are there."""
    bricks = [cluster.brick(number, volume) for number in cluster.numbers]
    return direct("gluster_brick_info", {"bricks": [path for path in bricks if Path(path).exists()]})


@pytest.mark.long
def test_a_data_brick_beside_an_arbiter_goes_only_when_the_other_has_all(glusterds: Glusterds) -> None:
    name, bricks = "arbd", glusterds.bricks("arbd")
    volume: dict[str, Any] = {"name": name, "arbiter": 1, "bricks": bricks}
    both(lambda *, check=False: volumes(glusterds, volume, check=check))
    to = {"host": HOSTS[0], "path": glusterds.brick(1, f"{name}n")}
    reset = {**volume, "reset": bricks[:1]}
    swapped = {**volume, "bricks": [to, *bricks[1:]], "replace": [{"from": bricks[0], "to": to}]}

    def kept(*sentences: str) -> None:
        held = contents(glusterds, name)
        for wanted in (reset, swapped):
            refused(glusterds, wanted, *sentences)
        assert contents(glusterds, name) == held

    # The arbiter alone knows that the second brick lacks something, and has nothing of it.
    glusterds.xml("volume", "set", name, "cluster.self-heal-daemon", "off")
    kill_brick(glusterds, 2, name)
    files(glusterds, name, 2)
    start_bricks(glusterds, name)
    kill_brick(glusterds, 1, name)
    brick = Path(bricks[0]["path"])
    disk = brick.rename(brick.with_name("disk"))
    kept(f"have too little good data left on {HOSTS[1]}:", "allow: [stale_source]")
    kill_brick(glusterds, 2, name)
    kept(f"brick {HOSTS[1]}:", "is offline")
    disk.rename(brick)
    start_bricks(glusterds, name)
    glusterds.xml("volume", "reset", name, "cluster.self-heal-daemon")
    assert gate(glusterds, volumes=[name])["healthy"]
    read_back(glusterds, name, 2)

    for wanted, word, path in ((reset, "reset", bricks[0]["path"]), (swapped, "replace", to["path"])):
        kill_brick(glusterds, 1, name)
        shutil.rmtree(brick)
        files(glusterds, name, 4)
        done = both(lambda *, check=False, wanted=wanted: volumes(glusterds, wanted, check=check))
        assert done["actions"][0].startswith(f"{word} brick {HOSTS[0]}:")
        assert gate(glusterds, volumes=[name])["healthy"]
        read_back(glusterds, name, 4)
        assert (Path(path) / "file3").read_text() == "3\n" * 1000
        assert (Path(bricks[2]["path"]) / "file3").read_bytes() == b""


def test_other_layouts(glusterds: Glusterds) -> None:
    arbiter = {"name": "arb", "replica": 3, "arbiter": 1, "bricks": glusterds.bricks("arb"), "state": "present"}
    dispersed = {"name": "disp", "disperse": 3, "redundancy": 1, "bricks": glusterds.bricks("disp"), "state": "present"}
    done = both(lambda *, check=False: volumes(glusterds, arbiter, dispersed, check=check))
    assert done["volumes"]["arb"]["layout"] == "replica 3 arbiter 1" and done["volumes"]["arb"]["state"] == "created"
    assert done["volumes"]["disp"]["layout"] == "disperse 3 redundancy 1"


def test_a_reinstalled_host_is_itself_again(glusterds: Glusterds) -> None:
    told = direct("gluster_peer_info", glusterds.params())
    files(glusterds, "two", 5)
    held = direct("gluster_peer", {"peers": [HOSTS[2]], "state": "absent", **glusterds.params()})
    assert "refused" in held["msg"] and "it holds 127.1.1.3:" in held["msg"] and "of volume two" in held["msg"]
    glusterds.stop(3)
    home = glusterds.top / "3"
    glusterds._kill(list((home / "run").rglob("*.pid")))
    shutil.rmtree(home / "wd")
    (home / "wd" / "groups").mkdir(parents=True)
    shutil.rmtree(glusterds.brick(3, "two"))
    # Debian starts glusterd when it is installed: with another identity, which the pool rejects.
    glusterds.start(3)
    wait_until(lambda: "Rejected" in glusterds.xml("pool", "list"), "the pool rejects the stranger")
    stranger = peers(glusterds)
    assert "gluster_identity gives it back its UUID" in stranger["msg"]
    glusterds.stop(3)
    wanted = {
        "uuid": told["peers"][HOSTS[2]]["uuid"],
        "peers": {HOSTS[0]: told["peers"]["localhost"]["uuid"]},
        "op_version": told["op_version"],
        "service": "",
        "glusterd_workdir": str(home / "wd"),
    }
    both(lambda *, check=False: direct("gluster_identity", wanted, check=check))
    glusterds.start(3)
    wait_until(lambda: glusterds.xml("pool", "list").count("<state>3") == 2, "all are members again")
    assert not peers(glusterds)["changed"]
    there = {
        **glusterds.params(),
        "local_host": HOSTS[2],
        "glusterd_sock": str(home / "run" / "glusterd.sock"),
        "glusterd_workdir": str(home / "wd"),
    }
    wait_until(
        lambda: "two" in direct("gluster_volume_info", {**there, "heal": False})["volumes"], "the volumes are there"
    )
    # The module starts a service of systemd's once more; without that, the brick is taken for a new one.
    glusterds.stop(3)
    glusterds.start(3)
    wait_until(lambda: glusterds.xml("pool", "list").count("<connected>1") == 3, "the host is back")
    lost = {"name": "two", "bricks": glusterds.bricks("two"), "reset": glusterds.bricks("two")[2:]}
    wanted = {"volumes": [lost], "config_backup_dir": str(home / "backups"), **there}
    done = both(lambda *, check=False: direct("gluster_volume", wanted, check=check))
    assert len(list((home / "backups").iterdir())) == 1
    assert done["actions"][0].startswith("reset brick 127.1.1.3:") and gate(glusterds, volumes=["two"])["healthy"]
    read_back(glusterds, "two", 5)
    assert sorted(path.name for path in Path(glusterds.brick(3, "two")).glob("f*")) == [f"file{n}" for n in range(5)]


def test_a_self_heal_daemon_that_died_is_started(glusterds: Glusterds) -> None:
    see_healers(glusterds, 2)
    wanted = gv0(glusterds, bricks=glusterds.bricks("gv0", "gv0b"))
    died = int((glusterds.top / "2" / "run" / "shd" / "gv0" / "gv0-shd.pid").read_text())
    os.kill(died, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{died}").exists(), "it is dead")
    done = both(lambda *, check=False: volumes(glusterds, wanted, check=check))
    assert done["actions"] == ["start the self-heal daemon of volume gv0 on 127.1.1.2"]
    assert gate(glusterds, volumes=["gv0"])["healthy"]


@pytest.mark.long
def test_a_self_heal_daemon_of_which_glusterd_lost_the_process_is_started_anew(glusterds: Glusterds) -> None:
    home = glusterds.top / "3"
    cli, uuid = asking(glusterds, 3)
    see_healers(glusterds, 3)
    file = home / "run" / "shd" / "two" / "two-shd.pid"
    lost = int(file.read_text())
    file.unlink()
    cli("volume", "start", "two", "force")
    time.sleep(5)
    assert parse_lost_healers(cli("volume", "status"), uuid) == {lost}, "a start is enough"
    see_healers(glusterds, 3)
    assert not Path(f"/proc/{lost}").exists() and int(file.read_text()) != lost


def test_a_volume_is_stopped_and_deleted_when_allowed_and_its_bricks_are_not_taken_again(glusterds: Glusterds) -> None:
    bricks = glusterds.bricks("gv0", "gv0b")
    stopped = gv0(glusterds, state="stopped", bricks=bricks)
    done = both(lambda *, check=False: volumes(glusterds, stopped, check=check))
    assert done["actions"] == ["stop volume gv0"]
    gone = gv0(glusterds, state="absent", allow=["delete"], bricks=bricks)
    done = both(lambda *, check=False: volumes(glusterds, gone, check=check))
    assert done["volumes"]["gv0"] == {"state": "absent"}
    assert Path(glusterds.brick(1, "gv0")).is_dir()
    refused(glusterds, gv0(glusterds), "carries the id of a volume")


def test_hosts_leave_the_pool_when_they_hold_nothing(glusterds: Glusterds) -> None:
    gone = ("gv1", "opn", "two", "arb", "arb2", "arbd", "one", "disp", "disp2")
    ended = [{"name": name, "state": "absent", "allow": ["delete"]} for name in gone]
    both(lambda *, check=False: volumes(glusterds, *ended, check=check))
    wanted = {"peers": [HOSTS[2]], "state": "absent", **glusterds.params()}
    itself = direct("gluster_peer", {**wanted, "peers": [HOSTS[0]]})
    assert "it is this host" in itself["msg"]
    glusterds.stop(3)
    wait_until(lambda: "<connected>0" in glusterds.xml("pool", "list"), "the peer is seen as lost")
    assert "allow: [disconnected]" in direct("gluster_peer", wanted)["msg"]
    wanted = {**wanted, "allow": ["disconnected"]}
    done = both(lambda *, check=False: direct("gluster_peer", wanted, check=check))
    assert done["actions"] == ["remove 127.1.1.3 from the pool"]
    assert "127.1.1.3" not in glusterds.xml("pool", "list") and "127.1.1.2" in glusterds.xml("pool", "list")
    glusterds.start(3)


def test_a_daemon_that_was_used_and_is_down_is_an_error_even_in_check_mode(glusterds: Glusterds) -> None:
    glusterds.stop(1)
    for check in (True, False):
        result = volumes(glusterds, gv1(glusterds, "gv1a"), check=check)
        assert result["failed"] and "glusterd does not answer" in result["msg"]
    glusterds.start(1)


def test_check_mode_on_a_host_that_never_had_gluster_lists_what_the_run_would_do(tmp_path: Path) -> None:
    nowhere = {"glusterd_sock": str(tmp_path / "no.sock"), "glusterd_workdir": str(tmp_path), "local_host": "n1"}
    names = ["n1", "n2", "n3"]
    bricks = [{"host": name, "path": "/bricks/gv0/brick"} for name in names]
    item = {"name": "gv0", "bricks": bricks, "group": "virt", "options": {"client.ssl": True}}
    pool = direct("gluster_peer", {"peers": names, **nowhere}, check=True)
    assert pool["actions"] == ["add n2 to the pool", "add n3 to the pool"]
    made = direct("gluster_volume", {"volumes": [item], **nowhere}, check=True)
    assert made["actions"] == [
        "create volume gv0 (replica 3) on n1:/bricks/gv0/brick, n2:/bricks/gv0/brick, n3:/bricks/gv0/brick",
        "set on volume gv0: group virt, client.ssl=on",
        "start volume gv0",
    ]
    assert direct("gluster_volume", {"volumes": [item], **nowhere})["failed"]
