# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk as a mounted thin volume: PV, VG, thin pool, thin LV, XFS, a bare mountpoint, a line in fstab, mounted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm.declared import (
    KIB,
    Wanted,
    faults,
    wanted_from,
)
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import (
    ClusterError,
    CommandFailed,
    NotYet,
    Refused,
)
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

MIB = 1024 * KIB
# A thin pool needs about 64 bytes of metadata per chunk and mapping; four times that leaves room for snapshots.
METADATA_PER_CHUNK = 256
METADATA_SMALLEST = 16 * MIB
METADATA_LARGEST = 15 * 1024 * MIB
EXTENT = 4 * MIB
LONG = 600.0
# linux/fs.h: FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IMMUTABLE_FL.
GET_FLAGS = 0x80086601
SET_FLAGS = 0x40086602
IMMUTABLE = 0x10
REPORT = ("--reportformat", "json", "--units", "b", "--nosuffix", "--options")
PV_COLUMNS = "pv_name,vg_name,pv_size"
LV_COLUMNS = "vg_name,lv_name,lv_size,pool_lv,segtype,chunk_size,lv_profile,lv_tags,zero"
FILL_COLUMNS = "vg_name,lv_name,pool_lv,data_percent,metadata_percent"
# On a thin LV from its creation until its filesystem is whole. Only then is it formatted: a filesystem that cannot be
# read any more looks as blank as one that never was.
EMPTY_TAG = "personal-cluster-empty"
# How an XFS superblock begins, and where in it mkfs marks a filesystem that it has not finished.
XFS_MAGIC = b"XFSB"
XFS_UNFINISHED_AT = 126


@dataclass(frozen=True)
class Stack:
    """What exists of one volume; sizes in bytes, empty strings for what is missing.

    ``holder`` is the volume group of the device's PV, None when the device is no PV. ``directory`` is absent,
    bare (immutable and empty), plain, occupied or mounted. ``mounted`` is what is mounted there. A volume that is not
    ``active`` cannot be looked into: LVM was not there when its disk was opened. ``empty`` says that it was made
    and its filesystem not noted as finished yet, ``whole`` that it is finished all the same.
    """

    device: bool = False
    signatures: tuple[str, ...] = ()
    holder: Optional[str] = None
    group: bool = False
    pool: str = ""
    chunk: int = 0
    zero: bool = False
    profile: str = ""
    volume: str = ""
    active: bool = True
    empty: bool = False
    whole: bool = False
    filesystem: str = ""
    directory: str = "absent"
    mounted: str = ""
    fstab: str = ""


@dataclass(frozen=True)
class Report:
    """What LVM reports: PVs with their groups, LVs by group and name."""

    holders: Mapping[str, str] = field(default_factory=dict)
    volumes: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)


def parse_report(pvs: str, lvs: str) -> Report:
    """Return what ``pvs`` and ``lvs`` printed as JSON; PVs by their canonical device path."""
    pv_rows = json.loads(pvs)["report"][0]["pv"]
    lv_rows = json.loads(lvs)["report"][0]["lv"]
    return Report(
        holders={os.path.realpath(row["pv_name"]): row["vg_name"] for row in pv_rows},
        volumes={(row["vg_name"], row["lv_name"]): row for row in lv_rows},
    )


def parse_signatures(text: str) -> tuple[str, ...]:
    """Return the types that ``wipefs --json`` found; it prints nothing for a blank device."""
    return tuple(sorted({row["type"] for row in json.loads(text)["signatures"]})) if text.strip() else ()


def parse_mounts(text: str) -> dict[str, tuple[str, str]]:
    """Return (source, filesystem) of each mountpoint of /proc/self/mountinfo; the topmost wins."""
    mounts = {}
    for line in text.splitlines():
        place, _dash, rest = line.partition(" - ")
        kind, source = rest.split()[:2]
        mounts[_unescaped(place.split()[4])] = (_unescaped(source), kind)
    return mounts


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def fstab_line(text: str, mountpoint: str) -> str:
    """Return the line of ``mountpoint``, its fields separated by one blank; empty when there is none."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 4 and not fields[0].startswith("#") and fields[1] == mountpoint:
            return " ".join((fields + ["0", "0"])[:6])
    return ""


def with_fstab_line(text: str, mountpoint: str, line: str) -> str:
    """Return ``text`` with the line of ``mountpoint`` replaced, or appended."""
    lines = text.splitlines()
    places = [number for number, old in enumerate(lines) if fstab_line(old, mountpoint)]
    if places:
        lines[places[0]] = line
    else:
        lines.append(line)
    return "\n".join(lines) + "\n"


def mountpoint_of(path: str, mounts: Collection[str]) -> str:
    """Return which of ``mounts`` the absolute ``path`` lies below, the innermost; empty for none."""
    above = (place for place in mounts if f"{path}/".startswith(place.rstrip("/") + "/"))
    return max(above, key=len, default="")


def pools_below(run: Run, paths: Collection[str]) -> dict[str, tuple[str, Optional[float], Optional[float]]]:
    """Return the thin pool below each of ``paths``: its name, and how full its data and its metadata are, in percent.

    None where LVM does not tell, as of a pool that is not active. What lies on no mounted thin LV is left out.
    """
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        mounts = parse_mounts(stream.read())
    rows = json.loads(run(["lvs", *REPORT, FILL_COLUMNS]).stdout)["report"][0]["lv"]
    by_name = {f"{row['vg_name']}/{row['lv_name']}": row for row in rows}
    found = {}
    for path in paths:
        source, _kind = mounts.get(mountpoint_of(os.path.realpath(path), mounts), ("", ""))
        for name, row in by_name.items():
            pool = f"{row['vg_name']}/{row['pool_lv']}"
            if pool in by_name and same_device(source, f"/dev/{name}"):
                used = by_name[pool]
                found[path] = pool, _percent(used["data_percent"]), _percent(used["metadata_percent"])
    return found


def _percent(text: str) -> Optional[float]:
    return float(text) if text else None


def metadata_size(pool: int, chunk: int) -> int:
    """Return the bytes of metadata for a pool of ``pool`` bytes in chunks of ``chunk`` bytes, in whole extents."""
    wanted = min(max(pool // chunk * METADATA_PER_CHUNK, METADATA_SMALLEST), METADATA_LARGEST)
    return -(-wanted // EXTENT) * EXTENT


def thin_size(pool: int, percent: int) -> int:
    """Return ``percent`` of ``pool`` bytes, in whole extents."""
    return pool * percent // 100 // EXTENT * EXTENT


def is_whole_xfs(path: str) -> bool:
    """Say whether a device carries an XFS filesystem that mkfs has finished."""
    with open(path, "rb") as stream:
        superblock = stream.read(XFS_UNFINISHED_AT + 1)
    return superblock.startswith(XFS_MAGIC) and superblock[XFS_UNFINISHED_AT] == 0


def is_immutable(path: str) -> bool:
    """Say whether the directory has the immutable flag; a filesystem without flags has none."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return bool(_flags(handle) & IMMUTABLE)
    except OSError as error:
        if error.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return False
        raise
    finally:
        os.close(handle)


def _flags(handle: int) -> int:
    return int(struct.unpack("l", fcntl.ioctl(handle, GET_FLAGS, struct.pack("l", 0)))[0])


def make_immutable(path: str) -> None:
    """Set the immutable flag of a directory."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.ioctl(handle, SET_FLAGS, struct.pack("l", _flags(handle) | IMMUTABLE))
    finally:
        os.close(handle)


State = Mapping[str, Stack]


class ThinVolumes:
    """All thin volumes of a node; see the module thin_volume for the items."""

    def __init__(self, items: Sequence[Mapping[str, Any]], run: Run, fstab: str = "/etc/fstab") -> None:
        self._wanted = [wanted_from(item) for item in items]
        self._run = run
        self._fstab = fstab
        self._seen: dict[str, Stack] = {}

    def read(self) -> State:
        """Look once: two LVM reports, and one look for signatures at each device that is not in use yet.

        :raises Refused: the declaration makes no sense on any node.
        """
        wrong = faults(self._wanted)
        if wrong:
            raise Refused(wrong)
        self._seen = {one.name: self._bare_stack(one) for one in self._wanted}
        report = self._report()
        self._seen = {one.name: self._stack(one, report, self._seen[one.name]) for one in self._wanted}
        self._require_devices()
        return self._seen

    def _require_devices(self) -> None:
        lost = [one for one in self._wanted if not self._seen[one.name].device]
        for one in lost:
            if self._seen[one.name].fstab and not self._seen[one.name].mounted and not one.replaced:
                raise ClusterError(
                    f"{one.device} of volume {one.name} is missing, though it was used before: is the disk there, "
                    "is it unlocked (systemctl status 'systemd-cryptsetup@*')?"
                )
        if lost:
            raise NotYet(f"{', '.join(one.device for one in lost)} missing; run the role encryption first")

    def _report(self) -> Report:
        pvs = self._run(["pvs", *REPORT, PV_COLUMNS]).stdout
        return parse_report(pvs, self._run(["lvs", *REPORT, LV_COLUMNS]).stdout)

    def _bare_stack(self, one: Wanted) -> Stack:
        """Return what can be seen without LVM's tools."""
        with open("/proc/self/mountinfo", encoding="utf-8") as stream:
            source, kind = parse_mounts(stream.read()).get(one.mountpoint, ("", ""))
        return Stack(
            device=os.path.exists(one.device),
            filesystem=kind if source else "",
            directory="mounted" if source else _directory(one.mountpoint),
            mounted=source,
            fstab=fstab_line(self._fstab_text(), one.mountpoint),
        )

    def _stack(self, one: Wanted, report: Report, bare: Stack) -> Stack:
        pool = report.volumes.get((one.group, one.pool), {})
        volume = report.volumes.get((one.group, one.volume), {})
        holder = report.holders.get(os.path.realpath(one.device)) if bare.device else None
        filesystem = bare.filesystem
        active = not volume or bool(bare.mounted) or os.path.exists(one.path)
        empty = EMPTY_TAG in volume.get("lv_tags", "").split(",")
        if volume and not bare.mounted and active:
            filesystem = " ".join(self._signatures(one.path))
        return replace(
            bare,
            signatures=self._signatures(one.device) if bare.device and holder is None else (),
            holder=holder,
            group=one.group in report.holders.values(),
            pool=pool.get("segtype", ""),
            chunk=int(pool.get("chunk_size", 0)),
            # lvm.conf may ask for numbers.
            zero=pool.get("zero", "") not in ("", "0"),
            profile=pool.get("lv_profile", ""),
            volume=volume.get("segtype", ""),
            active=active,
            empty=empty,
            whole=empty and active and (bool(bare.mounted) or is_whole_xfs(one.path)),
            filesystem=filesystem,
        )

    def _signatures(self, device: str) -> tuple[str, ...]:
        return parse_signatures(self._run(["wipefs", "--no-act", "--json", device]).stdout)

    def _fstab_text(self) -> str:
        try:
            with open(self._fstab, encoding="utf-8") as stream:
                return stream.read()
        except FileNotFoundError:
            return ""

    def blank(self) -> State:
        """Return what was seen, and nothing where the tools or the device are missing."""
        return self._seen

    def plan(self, state: State) -> Plan[State]:
        """Plan the volumes side by side: first what is below, then fstab, then the mounts."""
        plan: Plan[State] = Plan(state)
        for one in self._wanted:
            plan.refusals += refusals(one, state[one.name])
        plan.warnings += [
            f"{one.name}: the pool's chunks are {state[one.name].chunk // KIB} KiB, declared {one.chunk // KIB} KiB; "
            "that cannot be changed in place"
            for one in self._wanted
            if state[one.name].pool and state[one.name].chunk != one.chunk
        ]
        for one in self._wanted:
            plan.steps += self._below(one, state[one.name])
        changed = [one for one in self._wanted if state[one.name].fstab != one.fstab]
        plan.steps += [
            Step(f"write the line of {one.mountpoint} into {self._fstab}", partial(self._write_fstab, one))
            for one in changed
        ]
        if changed:
            plan.steps.append(Step(f"let systemd read {self._fstab}", self._reload))
        plan.steps += [
            Step(f"mount {one.path} on {one.mountpoint}", partial(self._mount, one))
            for one in self._wanted
            if not state[one.name].mounted
        ]
        plan.predicted = {one.name: _finished(one, state[one.name]) for one in self._wanted}
        return plan

    def _below(self, one: Wanted, stack: Stack) -> list[Step]:
        steps = []
        if not stack.group:
            sentence = f"create volume group {one.group} on {one.device}"
            steps.append(Step(sentence, partial(self._do, ["vgcreate", one.group, one.device])))
        if not stack.active:
            words = ["vgchange", "--activate", "y", one.group]
            steps.append(Step(f"activate volume group {one.group}", partial(self._do, words)))
        if not stack.pool:
            sentence = (
                f"create thin pool {one.group}/{one.pool} ({one.pool_percent} % of the group, "
                f"chunks of {one.chunk // KIB} KiB{'' if one.zero else ', not zeroed'})"
            )
            steps.append(Step(sentence, partial(self._make_pool, one)))
        else:
            steps += self._pool_changes(one, stack)
        if not stack.volume:
            sentence = f"create thin volume {one.group}/{one.volume} ({one.volume_percent} % of the pool)"
            steps.append(Step(sentence, partial(self._make_volume, one)))
        if (stack.empty or not stack.volume) and not stack.whole:
            steps.append(Step(f"make an XFS filesystem on {one.path}", partial(self._make_filesystem, one)))
        elif stack.empty:
            steps.append(Step(f"note that the filesystem on {one.path} is finished", partial(self._not_empty, one)))
        if stack.directory in ("absent", "plain"):
            sentence = f"make {one.mountpoint}, immutable while nothing is mounted there"
            steps.append(Step(sentence, partial(_make_bare, one.mountpoint)))
        return steps

    def _pool_changes(self, one: Wanted, stack: Stack) -> Iterator[Step]:
        pool = f"{one.group}/{one.pool}"
        if one.profile and stack.profile != one.profile:
            words = ["lvchange", "--metadataprofile", one.profile, pool]
            yield Step(f"set profile {one.profile} on {pool}", partial(self._do, words))
        if stack.zero != one.zero:
            what = "zero new chunks" if one.zero else "leave new chunks as they are"
            yield Step(f"let {pool} {what}", partial(self._do, ["lvchange", "--zero", _yes(one.zero), pool]))

    def _do(self, argv: Sequence[str]) -> None:
        self._run(argv, timeout=LONG)

    def _make_pool(self, one: Wanted) -> None:
        rows = json.loads(self._run(["pvs", *REPORT, PV_COLUMNS]).stdout)["report"][0]["pv"]
        size = sum(int(row["pv_size"]) for row in rows if row["vg_name"] == one.group)
        metadata = metadata_size(size * one.pool_percent // 100, one.chunk)
        self._do(
            [
                *("lvcreate", "--type", "thin-pool", "--name", one.pool, "--extents", f"{one.pool_percent}%VG"),
                *("--chunksize", f"{one.chunk}b", "--poolmetadatasize", f"{metadata}b", "--zero", _yes(one.zero)),
                *(("--metadataprofile", one.profile) if one.profile else ()),
                one.group,
            ]
        )

    def _make_volume(self, one: Wanted) -> None:
        rows = json.loads(self._run(["lvs", *REPORT, LV_COLUMNS, one.group]).stdout)["report"][0]["lv"]
        pool = next(int(row["lv_size"]) for row in rows if row["lv_name"] == one.pool)
        size = thin_size(pool, one.volume_percent)
        self._do(
            [
                *("lvcreate", "--type", "thin", "--name", one.volume, "--virtualsize", f"{size}b"),
                *("--addtag", EMPTY_TAG, "--thinpool", one.pool, one.group),
            ]
        )

    def _make_filesystem(self, one: Wanted) -> None:
        # A volume that was not active could not be looked into before.
        if not is_whole_xfs(one.path):
            # Forced: a mkfs that was killed left a superblock, and a filesystem that cannot be mounted.
            self._do(["mkfs.xfs", "-f", "-q", "-i", "size=512", "-n", "size=8192", one.path])
        self._not_empty(one)

    def _not_empty(self, one: Wanted) -> None:
        self._do(["lvchange", "--deltag", EMPTY_TAG, f"{one.group}/{one.volume}"])

    def _write_fstab(self, one: Wanted) -> None:
        text = with_fstab_line(self._fstab_text(), one.mountpoint, one.fstab)
        with replacing(Path(self._fstab), 0o644) as stream:
            stream.write(text.encode())

    def _reload(self) -> None:
        self._do(["systemctl", "daemon-reload"])

    def _mount(self, one: Wanted) -> None:
        try:
            self._do(["mount", one.mountpoint])
        except CommandFailed:
            # systemd may have been faster, as soon as the device and the line in fstab were both there.
            if not os.path.ismount(one.mountpoint):
                raise

    def view(self, state: State) -> dict[str, Any]:
        """Return the layers of each volume."""
        return {"volumes": {name: _view(stack) for name, stack in state.items()}}


def _yes(value: bool) -> str:
    return "y" if value else "n"


def _view(stack: Stack) -> dict[str, Any]:
    pool = {"chunk_kib": stack.chunk // KIB, "zero": stack.zero, "profile": stack.profile}
    return {
        "volume_group": stack.group,
        "pool": pool if stack.pool else None,
        "thin_volume": bool(stack.volume),
        "filesystem": stack.filesystem,
        "fstab": stack.fstab,
        "mounted": bool(stack.mounted),
    }


def _finished(one: Wanted, stack: Stack) -> Stack:
    return Stack(
        device=True,
        holder=one.group,
        group=True,
        pool="thin-pool",
        chunk=stack.chunk if stack.pool else one.chunk,
        zero=one.zero,
        profile=one.profile or stack.profile,
        volume="thin",
        filesystem="xfs",
        directory="mounted",
        mounted=one.path,
        fstab=one.fstab,
    )


def refusals(one: Wanted, stack: Stack) -> list[str]:
    """Return what stands in the way of ``one``."""
    found = []
    if not stack.volume and one.pool_percent == one.volume_percent == 100:
        found.append(
            f"{one.name}: pool_percent and volume_percent are 100, which leaves no room for snapshots; lower one"
        )
    if stack.signatures:
        found.append(
            f"{one.device} holds a {' and a '.join(stack.signatures)} signature; if nothing on it is needed: "
            f"wipefs --all {one.device}"
        )
    if stack.fstab and stack.device and not (stack.signatures or stack.holder or stack.group or one.replaced):
        found.append(
            f"{one.device} is blank, and the line of {one.mountpoint} in fstab says that it was not: is it the right "
            "disk, with the header that it had? A new disk takes its place by replace_disk.yml; if the data was given "
            "up, take the line out"
        )
    if stack.holder and stack.holder != one.group:
        found.append(f"{one.device} belongs to volume group {stack.holder}, not {one.group}")
    if stack.group and stack.device and stack.holder != one.group:
        found.append(f"volume group {one.group} exists, but not on {one.device}")
    if stack.pool and stack.pool != "thin-pool":
        found.append(f"{one.group}/{one.pool} is no thin pool but {stack.pool}")
    if stack.volume and stack.volume != "thin":
        found.append(f"{one.path} is no thin volume but {stack.volume}; snapshots need a thin one")
    if stack.volume == "thin" and stack.active and not stack.filesystem and not stack.empty:
        found.append(
            f"no filesystem can be read on {one.path}, and it is not new: look at it with xfs_repair -n {one.path}; if "
            f"nothing on it is needed: lvremove {one.group}/{one.volume}"
        )
    if stack.filesystem not in ("", "xfs"):
        found.append(f"{one.path} holds {stack.filesystem}, not xfs")
    if stack.mounted and not same_device(stack.mounted, one.path):
        found.append(f"{stack.mounted} is mounted on {one.mountpoint}, not {one.path}")
    if stack.directory == "occupied":
        found.append(f"{one.mountpoint} is not empty though nothing is mounted there; look at it and move it away")
    return found


def same_device(one: str, other: str) -> bool:
    """Say whether two device paths lead to the same node."""
    return one == other or os.path.realpath(one) == os.path.realpath(other)


def _directory(path: str) -> str:
    if not os.path.isdir(path):
        return "absent"
    if os.listdir(path):
        return "occupied"
    return "bare" if is_immutable(path) else "plain"


def _make_bare(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)
    make_immutable(path)
