# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin volumes on reports recorded from LVM 2.03.16 (Debian 12) and 2.03.31 (Debian 13)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils import _engine
from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm import thin as lvm
from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm.declared import faults, wanted_from
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet, Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded" / "lvm"
TRIXIE, BOOKWORM = "2.03.31", "2.03.16"
SUPERBLOCKS = Path(__file__).parent / "recorded" / "xfsprogs"
DEVICE = "/dev/loop0"
GIB = 1 << 30


def item(top: Path, **more: Any) -> dict[str, Any]:
    return {
        "name": "t1",
        "device": DEVICE,
        "mountpoint": str(top / "brick"),
        "mount_options": ["noatime", "nofail"],
        "volume_group": None,
        "pool": "pool",
        "volume": "data",
        "chunk_kib": 256,
        "zero": True,
        "pool_percent": 90,
        "volume_percent": 85,
        "profile": "",
        "replaced": False,
        **more,
    }


def replay(
    release: str,
    name: str,
    signatures: Mapping[str, str] | None = None,
    asked: list[list[str]] | None = None,
    tags: str = "",
) -> Callable[..., Completed]:
    """Answer with a recorded report; ``signatures`` name the wipefs recording of each device, ``tags`` are data's."""

    def run(argv: Sequence[str], **_: Any) -> Completed:
        if asked is not None:
            asked.append(list(argv))
        if argv[0] in ("pvs", "lvs"):
            report = json.loads((RECORDED / release / f"{name}.{argv[0]}.json").read_text())
            for row in report["report"][0].get("lv", []):
                row["lv_tags"] = tags if row["lv_name"] == "data" else ""
            return Completed(0, json.dumps(report), "")
        if argv[0] == "wipefs":
            kind = (signatures or {}).get(argv[-1], "blank")
            return Completed(0, (RECORDED / TRIXIE / f"{kind}.wipefs.json").read_text(), "")
        return Completed(0, "", "")

    return run


def volumes(top: Path, run: Callable[..., Completed], **more: Any) -> lvm.ThinVolumes:
    fstab = top / "fstab"
    if not fstab.exists():
        fstab.write_text("UUID=1 / ext4 defaults 0 1\n")
    return lvm.ThinVolumes([item(top, **more)], run, str(fstab))


@pytest.fixture(autouse=True)
def device_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.path.exists
    monkeypatch.setattr("os.path.exists", lambda path: path in (DEVICE, "/dev/vg_t1/data") or real(path))


@pytest.fixture(autouse=True)
def superblock(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the thin volume begins with: nothing."""
    path = tmp_path_factory.mktemp("volume") / "superblock"
    path.write_bytes(bytes(512))
    real = lvm.is_whole_xfs
    monkeypatch.setattr(lvm, "is_whole_xfs", lambda _path: real(str(path)))
    return path


def sentences(resource: lvm.ThinVolumes) -> list[str]:
    return [step.sentence for step in resource.plan(resource.read()).steps]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"mountpoint": "bricks/gv0"}, "t1: 'bricks/gv0' is no mountpoint; give the whole path"),
        ({"mountpoint": "//"}, "t1: '/' is no mountpoint"),
        ({"mountpoint": "/bricks/../etc"}, "is no mountpoint"),
        ({"mountpoint": "/my bricks"}, "t1: mountpoint '/my bricks' has a blank"),
        ({"mount_options": ["noatime", "x-a b"]}, "t1: mount_options 'noatime,x-a b' has a blank"),
        ({"pool": "data"}, "t1: pool and volume are both named data"),
        ({"chunk_kib": 0}, "t1: chunk_kib is 0; use a multiple of 64"),
        ({"chunk_kib": 100}, "t1: chunk_kib is 100; use a multiple of 64"),
        ({"pool_percent": 0}, "t1: pool_percent is 0; use a number from 1 to 100"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused_before_anything_is_asked(
    tmp_path: Path, more: dict[str, Any], why: str
) -> None:
    asked: list[list[str]] = []
    with pytest.raises(Refused, match=re.escape(why)):
        volumes(tmp_path, replay(TRIXIE, "blank", asked=asked), **more).read()
    assert asked == []


@pytest.mark.parametrize("same", ["name", "device", "mountpoint", "volume_group"])
def test_what_two_volumes_cannot_share(tmp_path: Path, same: str) -> None:
    one = item(tmp_path, volume_group="vg1")
    other = {"name": "t2", "device": "/dev/loop9", "mountpoint": "/elsewhere", "volume_group": "vg2"}
    both = [one, {**one, **other, same: one[same]}]
    with pytest.raises(Refused, match=f"{one[same]} is declared 2 times"):
        lvm.ThinVolumes(both, replay(TRIXIE, "blank"), str(tmp_path / "fstab")).read()


def test_a_device_is_known_by_any_name(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to(DEVICE)
    other = {"name": "t2", "device": str(tmp_path / "by-id"), "mountpoint": "/other"}
    assert faults([wanted_from(item(tmp_path)), wanted_from(item(tmp_path, **other))]) == [
        f"device {DEVICE} is declared 2 times"
    ]


@pytest.mark.parametrize("spelling", ["{}/", "/{}", "{}/.", "{}//"])
def test_a_mountpoint_is_known_by_any_spelling(tmp_path: Path, spelling: str) -> None:
    resource = volumes(tmp_path, replay(TRIXIE, "blank"), mountpoint=spelling.format(tmp_path / "brick"))
    assert sentences(resource)[-1] == f"mount /dev/vg_t1/data on {tmp_path / 'brick'}"


def test_no_options_are_the_defaults(tmp_path: Path) -> None:
    (wanted,) = [wanted_from(item(tmp_path, mount_options=[]))]
    assert wanted.fstab == f"/dev/vg_t1/data {tmp_path / 'brick'} xfs defaults 0 0"
    assert lvm.fstab_line(wanted.fstab, wanted.mountpoint) == wanted.fstab


@pytest.mark.parametrize("release", [BOOKWORM, TRIXIE])
def test_a_blank_disk_gets_every_layer(tmp_path: Path, release: str) -> None:
    brick = tmp_path / "brick"
    assert sentences(volumes(tmp_path, replay(release, "blank"))) == [
        "create volume group vg_t1 on /dev/loop0",
        "create thin pool vg_t1/pool (90 % of the group, chunks of 256 KiB)",
        "create thin volume vg_t1/data (85 % of the pool)",
        "make an XFS filesystem on /dev/vg_t1/data",
        f"make {brick}, immutable while nothing is mounted there",
        f"write the line of {brick} into {tmp_path}/fstab",
        f"let systemd read {tmp_path}/fstab",
        f"mount /dev/vg_t1/data on {brick}",
    ]
    unzeroed = sentences(volumes(tmp_path, replay(release, "blank"), zero=False))
    assert unzeroed[1] == "create thin pool vg_t1/pool (90 % of the group, chunks of 256 KiB, not zeroed)"


@pytest.mark.parametrize(
    ("report", "left"),
    [("orphan", 8), ("group", 7), ("pool", 6), ("thin", 5)],
)
def test_a_run_that_was_cut_goes_on_where_it_stopped(tmp_path: Path, report: str, left: int) -> None:
    assert len(sentences(volumes(tmp_path, replay(TRIXIE, report, tags=lvm.EMPTY_TAG)))) == left


def test_an_existing_filesystem_is_kept(tmp_path: Path) -> None:
    found = sentences(volumes(tmp_path, replay(TRIXIE, "thin", {"/dev/vg_t1/data": "xfs"})))
    assert not any("filesystem on" in sentence for sentence in found) and len(found) == 4


def test_a_volume_that_was_opened_before_lvm_was_there_is_activated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.exists", lambda path: path == DEVICE)
    asked: list[list[str]] = []
    resource = volumes(tmp_path, replay(TRIXIE, "thin", asked=asked))
    steps = resource.plan(resource.read()).steps
    assert [step.sentence for step in steps][0] == "activate volume group vg_t1" and len(steps) == 5
    assert not any("XFS" in step.sentence for step in steps) and "wipefs" not in {argv[0] for argv in asked}
    steps[0].apply()
    assert asked[-1] == ["vgchange", "--activate", "y", "vg_t1"]


def test_a_filesystem_that_cannot_be_read_is_not_made_anew(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    resource = volumes(tmp_path, replay(TRIXIE, "thin", asked=asked))
    with pytest.raises(ClusterError, match=r"no filesystem can be read on /dev/vg_t1/data.*xfs_repair -n"):
        _engine.converge(resource, check=False, done=[])
    assert {argv[0] for argv in asked} == {"pvs", "lvs", "wipefs"}


def test_what_cannot_be_changed_is_not_foretold(tmp_path: Path) -> None:
    run = replay(TRIXIE, "thin", {"/dev/vg_t1/data": "xfs"}, [])
    resource = volumes(tmp_path, run, chunk_kib=512, profile="")
    state = resource.read()
    plan = resource.plan({"t1": replace(state["t1"], profile="mine")})
    assert plan.steps and "256 KiB, declared 512 KiB" in plan.warnings[0]
    assert resource.view(plan.predicted)["volumes"]["t1"]["pool"] == {"chunk_kib": 256, "zero": True, "profile": "mine"}


@pytest.mark.parametrize(
    ("zero", "done", "flag"), [(True, "zero new chunks", "y"), (False, "leave new chunks as they are", "n")]
)
def test_zeroing_is_changed_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: bool, done: str, flag: str
) -> None:
    line = f"/dev/vg_t1/data {tmp_path}/brick xfs noatime,nofail 0 0"
    (tmp_path / "fstab").write_text(f"{line}\n")
    monkeypatch.setattr(lvm, "parse_mounts", lambda _text: {f"{tmp_path}/brick": ("/dev/vg_t1/data", "xfs")})
    asked: list[list[str]] = []
    pools = {True: replay(TRIXIE, "thin", asked=asked), False: replay(TRIXIE, "thin-unzeroed", asked=asked)}

    def run(argv: Sequence[str], **_: Any) -> Completed:
        changed = ["lvchange", "--zero", flag, "vg_t1/pool"] in asked
        return pools[zero if changed else not zero](argv)

    planned = _engine.converge(volumes(tmp_path, run, zero=zero), check=True, done=[])
    made = _engine.converge(volumes(tmp_path, run, zero=zero), check=False, done=[])
    assert planned == made and made["actions"] == [f"let vg_t1/pool {done}"]
    shown = [made["diff"][side]["volumes"]["t1"]["pool"]["zero"] for side in ("before", "after")]
    assert shown == [not zero, zero]
    assert not _engine.converge(volumes(tmp_path, run, zero=zero), check=False, done=[])["changed"]


@pytest.mark.parametrize(("name", "number", "zero"), [("thin", "1", True), ("thin-unzeroed", "0", False)])
def test_numbers_are_understood_that_lvm_was_told_to_report(tmp_path: Path, name: str, number: str, zero: bool) -> None:
    def run(argv: Sequence[str], **_: Any) -> Completed:
        done = replay(TRIXIE, name)(argv)
        return replace(done, stdout=re.sub(r'"zero": "\w*"', f'"zero": "{number}"', done.stdout))

    assert volumes(tmp_path, run).read()["t1"].zero is zero


def test_a_filesystem_whose_making_was_killed_is_made_again(tmp_path: Path, superblock: Path) -> None:
    superblock.write_bytes(bytes.fromhex((SUPERBLOCKS / "killed-superblock.hex").read_text()))
    asked: list[list[str]] = []
    run = replay(TRIXIE, "thin", {"/dev/vg_t1/data": "xfs"}, asked, tags=f"{lvm.EMPTY_TAG},mine")
    resource = volumes(tmp_path, run)
    making = [step for step in resource.plan(resource.read()).steps if "XFS" in step.sentence]
    making[0].apply()
    assert asked[-2][:2] == ["mkfs.xfs", "-f"]
    assert asked[-1] == ["lvchange", "--deltag", lvm.EMPTY_TAG, "vg_t1/data"]


@pytest.mark.parametrize("active", [True, False])
def test_a_filesystem_that_was_finished_is_never_made_again(
    tmp_path: Path, superblock: Path, monkeypatch: pytest.MonkeyPatch, active: bool
) -> None:
    """The run was killed before it noted that, and somebody has mounted it since."""
    superblock.write_bytes(bytes.fromhex((SUPERBLOCKS / "whole-superblock.hex").read_text()))
    if not active:
        monkeypatch.setattr("os.path.exists", lambda path: path == DEVICE)
    asked: list[list[str]] = []
    run = replay(TRIXIE, "thin", {"/dev/vg_t1/data": "xfs"}, asked, tags=lvm.EMPTY_TAG)
    resource = volumes(tmp_path, run)
    steps = resource.plan(resource.read()).steps
    words = "note that the filesystem on" if active else "make an XFS filesystem on"
    (noting,) = [step for step in steps if step.sentence.startswith(words)]
    noting.apply()
    assert asked[-1] == ["lvchange", "--deltag", lvm.EMPTY_TAG, "vg_t1/data"]
    assert "mkfs.xfs" not in {argv[0] for argv in asked}


def test_a_volume_that_is_mounted_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(lvm, "parse_mounts", lambda _text: {f"{tmp_path}/brick": ("/dev/vg_t1/data", "xfs")})
    resource = volumes(tmp_path, replay(TRIXIE, "thin", asked=asked, tags=lvm.EMPTY_TAG))
    for step in resource.plan(resource.read()).steps:
        step.apply()
    assert ["lvchange", "--deltag", lvm.EMPTY_TAG, "vg_t1/data"] in asked
    assert "mkfs.xfs" not in {argv[0] for argv in asked}


def test_a_finished_volume_costs_two_reports_and_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    run = replay(TRIXIE, "thin", asked=asked)
    line = f"/dev/vg_t1/data {tmp_path}/brick xfs noatime,nofail 0 0"
    (tmp_path / "fstab").write_text(f"UUID=1 / ext4 defaults 0 1\n{line.replace(' xfs', chr(9) + 'xfs')}\n")
    monkeypatch.setattr(lvm, "parse_mounts", lambda _text: {f"{tmp_path}/brick": ("/dev/vg_t1/data", "xfs")})
    result = _engine.converge(volumes(tmp_path, run), check=False, done=[])
    assert not result["changed"] and [argv[0] for argv in asked] == ["pvs", "lvs"]
    assert result["volumes"]["t1"]["fstab"] == line and result["volumes"]["t1"]["mounted"]


def test_what_is_in_the_way_is_refused() -> None:
    wanted = wanted_from(item(Path("/x")))
    blank = lvm.Stack(device=True)
    own = replace(blank, group=True, holder="vg_t1")
    cases = {
        "holds a LVM2_member and a xfs signature": replace(blank, signatures=("LVM2_member", "xfs")),
        "belongs to volume group other": replace(blank, holder="other"),
        "exists, but not on /dev/loop0": replace(blank, group=True),
        "is no thin pool but linear": replace(own, pool="linear", chunk=262144),
        "snapshots need a thin one": replace(own, volume="linear"),
        "no filesystem can be read on /dev/vg_t1/data": replace(own, volume="thin"),
        "holds ext4, not xfs": replace(own, filesystem="ext4"),
        "/dev/sda1 is mounted on /x/brick": replace(own, directory="mounted", mounted="/dev/sda1", filesystem="xfs"),
        "is not empty though nothing is mounted": replace(own, directory="occupied"),
    }
    assert lvm.refusals(wanted, blank) == [] and lvm.refusals(wanted, own) == []
    for sentence, stack in cases.items():
        assert [sentence in why for why in lvm.refusals(wanted, stack)] == [True], sentence


def test_a_device_that_has_lost_all_is_not_taken_for_a_new_one() -> None:
    lost = lvm.Stack(device=True, fstab="/dev/vg_t1/data /x/brick xfs defaults 0 0")
    (why,) = lvm.refusals(wanted_from(item(Path("/x"))), lost)
    assert why.startswith("/dev/loop0 is blank, and the line of /x/brick in fstab says that it was not")
    assert lvm.refusals(wanted_from(item(Path("/x"), replaced=True)), lost) == []


@pytest.mark.parametrize("percent", [-1, 0, 101, 500])
@pytest.mark.parametrize("which", ["pool_percent", "volume_percent"])
def test_a_share_of_more_than_there_is_is_refused(which: str, percent: int) -> None:
    (why,) = faults([wanted_from(item(Path("/x"), **{which: percent}))])
    assert why == f"t1: {which} is {percent}; use a number from 1 to 100"
    for good in (1, 100):
        assert faults([wanted_from(item(Path("/x"), **{which: good}))]) == []


def test_a_new_volume_leaves_room_for_snapshots() -> None:
    wanted = wanted_from(item(Path("/x"), pool_percent=100, volume_percent=100))
    (why,) = lvm.refusals(wanted, lvm.Stack(device=True))
    assert why == "t1: pool_percent and volume_percent are 100, which leaves no room for snapshots; lower one"
    made = lvm.Stack(device=True, group=True, holder="vg_t1", volume="thin", filesystem="xfs")
    assert lvm.refusals(wanted, made) == []


def test_a_device_with_data_is_never_touched(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    resource = volumes(tmp_path, replay(TRIXIE, "blank", {DEVICE: "xfs"}, asked))
    with pytest.raises(ClusterError, match=r"holds a xfs signature.*wipefs --all /dev/loop0"):
        _engine.converge(resource, check=False, done=[])
    assert [argv[0] for argv in asked] == ["pvs", "lvs", "wipefs"] and "--no-act" in asked[2]


def test_a_device_that_was_never_there_is_not_yet_and_check_mode_plans_all_of_it(tmp_path: Path) -> None:
    resource = volumes(tmp_path, replay(TRIXIE, "blank"), device="/dev/mapper/luks-none")
    with pytest.raises(NotYet, match="luks-none missing"):
        _engine.converge(resource, check=False, done=[])
    result = _engine.converge(resource, check=True, done=[])
    assert len(result["actions"]) == 8 and "run the role encryption first" in result["warnings"][0]


def test_a_device_that_was_used_and_is_gone_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "fstab").write_text(f"/dev/vg_t1/data {tmp_path}/brick xfs noatime,nofail 0 0\n")
    resource = volumes(tmp_path, replay(TRIXIE, "blank"), device="/dev/mapper/luks-none")
    for check in (True, False):
        with pytest.raises(ClusterError, match="missing, though it was used before") as caught:
            _engine.converge(resource, check=check, done=[])
        assert not isinstance(caught.value, NotYet)


def test_a_disk_that_was_replaced_is_planned_before_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "fstab").write_text(f"/dev/vg_t1/data {tmp_path}/brick xfs noatime,nofail 0 0\n")
    resource = volumes(tmp_path, replay(TRIXIE, "blank"), device="/dev/mapper/luks-none", replaced=True)
    planned = _engine.converge(resource, check=True, done=[])
    assert planned["actions"][0] == "create volume group vg_t1 on /dev/mapper/luks-none"
    with pytest.raises(NotYet, match="luks-none missing; run the role encryption first"):
        _engine.converge(resource, check=False, done=[])


def test_sizes_leave_headroom() -> None:
    for size in (2 * GIB, 4 * GIB, 500 * GIB, 16000 * GIB):
        pool = size * 90 // 100
        metadata = lvm.metadata_size(pool, 256 << 10)
        assert metadata % lvm.EXTENT == 0 and metadata >= 16 << 20
        # The pool, its metadata and the spare of the same size fit into the group, with room to extend.
        assert pool + 2 * metadata < size
        assert lvm.thin_size(pool, 85) < pool


def test_the_tools_get_the_sizes(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    resource = volumes(tmp_path, replay(TRIXIE, "pool", asked=asked), profile="mine")
    wanted = wanted_from(item(tmp_path, profile="mine"))
    resource._make_pool(wanted)
    resource._make_volume(wanted)
    resource._make_pool(replace(wanted, zero=False))
    pool, thin, unzeroed = (argv for argv in asked if argv[0] == "lvcreate")
    assert pool == [
        *"lvcreate --type thin-pool --name pool --extents 90%VG --chunksize 262144b".split(),
        *"--poolmetadatasize 16777216b --zero y --metadataprofile mine vg_t1".split(),
    ]
    assert unzeroed == ["n" if word == "y" else word for word in pool]
    size = json.loads((RECORDED / TRIXIE / "pool.lvs.json").read_text())["report"][0]["lv"][0]["lv_size"]
    assert thin[-3:] == ["--thinpool", "pool", "vg_t1"]
    assert 0.84 * int(size) < int(thin[6].rstrip("b")) <= 0.85 * int(size)


def test_fstab_keeps_what_others_wrote() -> None:
    text = "# comment\nUUID=1 / ext4 defaults 0 1\n/dev/old /bricks/a xfs ro 0 0\nlast /x ext4 ro"
    line = "/dev/vg_a/data /bricks/a xfs noatime 0 0"
    changed = lvm.with_fstab_line(text, "/bricks/a", line)
    assert changed == f"# comment\nUUID=1 / ext4 defaults 0 1\n{line}\nlast /x ext4 ro\n"
    assert lvm.with_fstab_line(changed, "/bricks/a", line) == changed
    assert lvm.with_fstab_line(changed, "/bricks/b", "new /bricks/b xfs ro 0 0").endswith(
        "ro\nnew /bricks/b xfs ro 0 0\n"
    )
    assert lvm.fstab_line(changed, "/bricks/a") == line
    assert lvm.fstab_line("#/dev/a /bricks/a xfs ro 0 0\n", "/bricks/a") == ""


def test_mountinfo_with_blanks_and_the_topmost_mount() -> None:
    text = (
        "22 1 8:1 / / rw,relatime - ext4 /dev/vda rw\n"
        "30 22 253:3 / /bricks/a\\040b rw shared:1 - xfs /dev/mapper/vg_a-data rw\n"
        "31 30 0:5 / /bricks/a\\040b rw - tmpfs tmpfs rw\n"
    )
    assert lvm.parse_mounts(text) == {"/": ("/dev/vda", "ext4"), "/bricks/a b": ("tmpfs", "tmpfs")}


@pytest.mark.parametrize(
    ("path", "below"),
    [("/bricks/a/brick", "/bricks/a"), ("/bricks/a", "/bricks/a"), ("/bricks/ab", "/bricks"), ("/srv", "/")],
)
def test_what_a_path_is_mounted_below(path: str, below: str) -> None:
    assert lvm.mountpoint_of(path, {"/", "/bricks", "/bricks/a"}) == below
    assert lvm.mountpoint_of(path, {}) == ""


@pytest.mark.parametrize(("data", "metadata", "used"), [("93.27", "10.28", (93.27, 10.28)), ("", "", (None, None))])
def test_the_pool_below_a_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, metadata: str, used: tuple[float | None, float | None]
) -> None:
    report = json.loads((RECORDED / TRIXIE / "thin.lvs.json").read_text())
    for row in report["report"][0]["lv"]:
        mine = row["lv_name"] == "pool"
        row |= {"data_percent": data if mine else "1.00", "metadata_percent": metadata if mine else ""}
    mounts = {"/": ("/dev/vda1", "ext4"), str(tmp_path / "t1"): ("/dev/vg_t1/data", "xfs")}
    monkeypatch.setattr(lvm, "parse_mounts", lambda _text: mounts)
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Completed:
        asked.append(list(argv))
        return Completed(0, json.dumps(report), "")

    brick, other = str(tmp_path / "t1" / "brick"), str(tmp_path / "t2" / "brick")
    assert lvm.pools_below(run, [brick, other]) == {brick: ("vg_t1/pool", *used)}
    assert [argv[0] for argv in asked] == ["lvs"]


def test_a_mountpoint_is_absent_plain_or_occupied(tmp_path: Path) -> None:
    assert lvm._directory(str(tmp_path / "none")) == "absent"
    assert lvm._directory(str(tmp_path)) == "plain"
    (tmp_path / "file").touch()
    assert lvm._directory(str(tmp_path)) == "occupied"
