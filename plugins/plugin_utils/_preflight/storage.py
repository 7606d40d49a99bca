# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks and volumes: as declared, and what the disks hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.personal.cluster.plugins.module_utils._backends.node import SECTOR
from ansible_collections.personal.cluster.plugins.modules.luks_clevis_bind import FORMAT_OPTIONS
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.cluster import count_of_nodes
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    COPIES,
    Check,
    Data,
    Disk,
    Finding,
    Host,
    HostCheck,
    Site,
    Volume,
    mappings,
    no_mappings,
)
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.names import COLLECTION

# What a disk's name follows in the names of LUKS devices and in their labels.
MAPPER = "luks-"
# With that before it, a disk's name must fit into a LUKS label of 47 bytes; it also becomes part of the names of
# volume groups, systemd units and mount points, and of lines of crypttab and fstab.
DISK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,41}")
DISK_EXAMPLE = "{device: /dev/disk/by-id/NAME, volume: gv0}"
VOLUME_EXAMPLE = "{name: gv0}"


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"


def disks_declared(site: Site) -> Iterator[Finding]:
    """Each disk has a stable device, a name and a volume that can be used, and is named once."""
    volumes = [] if any(volumes_readable(site)) else site.volume_names
    for host in site.nodes:
        declared = host.declared.get("disks")
        if not declared:
            yield Finding(host.name, "cluster_disks", "no disk is declared", "list the data disks of this node")
            continue
        yield from no_mappings(host.name, "cluster_disks", declared, DISK_EXAMPLE)
        for disk in host.disks:
            yield from _disk_declared(host.name, disk, volumes)
        for name, times in Counter(disk.name for disk in host.disks if disk.name).items():
            if times > 1:
                yield Finding(
                    host.name,
                    "cluster_disks",
                    f"{times} disks are named {name}",
                    "give each disk of the same volume a `name` of its own",
                )


def _disk_declared(host: str, disk: Disk, volumes: Sequence[str]) -> Iterator[Finding]:
    known = ", ".join(volumes) or "one of storage_volumes"
    for key in disk.unknown:
        yield Finding(host, f"{disk.place}.{key}", "a disk has no such key", "use device, volume and name only")
    if not disk.volume:
        yield Finding(host, f"{disk.place}.volume", "it is not set", f"name the volume: {known}")
    elif volumes and disk.volume not in volumes:
        yield Finding(
            host,
            f"{disk.place}.volume",
            f"no volume {disk.volume!r} is declared",
            f"name one of {known}; storage_volumes declares more, preflight_local_volumes those of a node alone",
        )
    if disk.name and not DISK_NAME.fullmatch(disk.name):
        yield Finding(
            host,
            f"{disk.place}.name",
            f"{disk.name!r} cannot name an encrypted disk, a volume group and a mount point",
            "use at most 42 lower case letters, digits, hyphens and underscores, a letter or digit first",
        )
    if disk.name != disk.volume and disk.name in volumes:
        yield Finding(
            host,
            f"{disk.place}.name",
            f"{disk.name} is the name of another volume than the disk's, {disk.volume or 'which is not set'}",
            "choose another name",
        )
    if not disk.device.startswith("/dev/disk/by-id/"):
        yield Finding(
            host,
            f"{disk.place}.device",
            f"{disk.device or 'nothing'} is not a stable name, at the next boot it may be another disk",
            "name the disk as `ls -l /dev/disk/by-id/` on the node shows it",
        )


def volumes_have_disks(site: Site) -> Iterator[Finding]:
    """Every node has disks for every volume; one disk of a local volume bears its name, by which it is mounted."""
    for host in site.nodes:
        missing = [name for name in site.volume_names if name not in {disk.volume for disk in host.disks}]
        unclear = any(no_mappings(host.name, "cluster_disks", host.declared.get("disks"), DISK_EXAMPLE))
        if host.disks and missing and not unclear:
            yield Finding(
                host.name,
                "cluster_disks",
                f"there is no disk for {', '.join(missing)}",
                "declare one disk at least for each volume on every node",
            )
        for name in site.settings["local_volumes"]:
            names = [disk.name for disk in host.disks if disk.volume == name]
            if names and name not in names:
                yield Finding(
                    host.name,
                    "cluster_disks",
                    f"no disk for {name} is named {name}, and a local disk is mounted by its name",
                    f"leave the `name` of one disk for {name} out",
                )


def volumes_readable(site: Site) -> Iterator[Finding]:
    """The Gluster volumes are a list of mappings."""
    declared = site.settings["volumes"]
    if declared is None:
        yield Finding(
            CLUSTER,
            "storage_volumes",
            "it is left empty",
            f"leave it out and have the default, or write it as a list: [{VOLUME_EXAMPLE}]",
        )
    yield from no_mappings(CLUSTER, "storage_volumes", declared, VOLUME_EXAMPLE)


@cache
def _volume_spec() -> dict[str, Any]:
    """Return what the role storage takes of a volume."""
    specs = yaml_load((COLLECTION / "roles/storage/meta/argument_specs.yml").read_text())["argument_specs"]
    options: dict[str, Any] = specs["main"]["options"]["storage_volumes"]["options"]
    return options


def volumes_understood(site: Site) -> Iterator[Finding]:
    """Each volume is declared once, with what the role storage takes: it would tell when the disks are encrypted."""
    spec = _volume_spec()
    for place, item in mappings("storage_volumes", site.settings["volumes"]):
        for key in sorted(map(str, set(item) - set(spec))):
            yield Finding(CLUSTER, f"{place}.{key}", "a volume has no such key", f"use {', '.join(spec)} only")
        for key in sorted(set(item) & set(spec)):
            if item[key] is None and "default" in spec[key]:
                yield Finding(CLUSTER, f"{place}.{key}", "it is left empty", "leave it out and have the default")
            elif spec[key]["type"] == "list" and not isinstance(item[key], list):
                yield Finding(CLUSTER, f"{place}.{key}", f"{item[key]!r} is no list", f"write it as [{item[key]}]")
        plain = {key: {**option, "required": False} for key, option in spec.items()}
        given = {key: item[key] for key in plain if item.get(key) is not None}
        for message in ArgumentSpecValidator(plain).validate(given).error_messages:
            yield Finding(CLUSTER, place, message, f"write it like {VOLUME_EXAMPLE}")
    for name, times in Counter(volume.name for volume in site.volumes if volume.name).items():
        if times > 1:
            yield Finding(CLUSTER, "storage_volumes", f"{times} volumes are named {name}", "give each its own name")


def volumes_buildable(site: Site) -> Iterator[Finding]:
    """The bricks of each volume, in the order in which storage takes them, make whole sets that span hosts."""
    for volume in site.volumes:
        if not DISK_NAME.fullmatch(volume.name):
            yield Finding(
                CLUSTER, "storage_volumes", f"{volume.name!r} cannot name a volume", "name it like gv0 or gv1"
            )
            continue
        if volume.copies < COPIES and "replica_change" not in volume.allow:
            yield Finding(
                CLUSTER,
                "storage_volumes",
                f"{volume.name} has replica {volume.copies}: too few copies to tell which one is right",
                "take `replica: 3`; with `arbiter: 1` one of the three holds names only",
            )
        counts = {host.name: sum(disk.volume == volume.name for disk in host.disks) for host in site.nodes}
        # What misses is a finding already, and of what --limit leaves out nothing is known.
        complete = all(counts.values()) and len(counts) == len(site.settings["nodes"])
        if complete and volume.copies > 0 and not any(count_of_nodes(site)):
            yield from _bricks_make_sets(volume, counts)


def _bricks_make_sets(volume: Volume, counts: Mapping[str, int]) -> Iterator[Finding]:
    hosts = [host for number in range(max(counts.values())) for host, count in counts.items() if count > number]
    sets = [hosts[start : start + volume.copies] for start in range(0, len(hosts), volume.copies)]
    found = ""
    if len(hosts) % volume.copies:
        found = "no multiple of that"
    elif any(len(set(members)) < len(members) for members in sets):
        found = "two copies would be on the same node"
    if found:
        listed = ", ".join(f"{host} has {count}" for host, count in counts.items())
        yield Finding(
            CLUSTER,
            "cluster_disks",
            f"the disks for {volume.name} do not make sets of {volume.copies} on different nodes, {found}: {listed}",
            f"declare the same number of disks for {volume.name} on each of {volume.copies} nodes",
        )


def format_declared(site: Site) -> Iterator[Finding]:
    """What new disks are to be encrypted with is what the module that does so takes."""
    for host in site.nodes:
        _sector_size, faults = _format(host)
        for fault in faults:
            remedy = "`ansible-doc personal.cluster.luks_clevis_bind` shows what a format is made of"
            yield Finding(host.name, "encryption_format", fault, remedy)


def _format(host: Host) -> tuple[int, list[str]]:
    """Return the sector size, in bytes, that new disks of a node get, and what is wrong with their format."""
    declared = host.declared.get("format") or {}
    if not isinstance(declared, Mapping):
        return SECTOR, [f"{declared!r} is no mapping"]
    validated = ArgumentSpecValidator(FORMAT_OPTIONS).validate(declared)
    if validated.error_messages:
        return SECTOR, [f"it is not understood: {message}" for message in validated.error_messages]
    return int(validated.validated_parameters["sector_size"] or SECTOR), []


def sectors_agree(site: Site) -> Iterator[Finding]:
    """All disks of a volume have sectors of one size, those that are yet to be encrypted too.

    A write in smaller sectors than a disk has never gets there, and nothing heals it.
    """
    for volume in site.volumes:
        found: dict[int, list[str]] = {}
        for host in site.nodes:
            for disk in host.disks:
                seen = host.node.get("disks", {}).get(disk.device)
                if disk.volume == volume.name and seen is not None and not _strangers(disk, seen):
                    found.setdefault(_sector(host, seen), []).append(f"{disk.name} of {host.name}")
        if len(found) > 1:
            sizes = "; ".join(f"{size} bytes: {', '.join(disks)}" for size, disks in sorted(found.items()))
            yield Finding(
                CLUSTER,
                "encryption_format.sector_size",
                f"the disks of {volume.name} have not the same sectors: {sizes}",
                "choose a sector_size that makes those that are blank like the others, or name another disk",
            )


def _sector(host: Host, seen: Data) -> int:
    """Return the size of a disk's sectors, in bytes: those that it will have, where it is blank."""
    return int(max(seen["block_size"], seen["luks"]["sector_size"] if seen["luks"] else _format(host)[0]))


def disks_usable(host: Host, settings: Data) -> Iterator[Finding]:
    """Each disk is present, whole, big enough, and blank or already ours."""
    users: dict[str, str] = {}
    for disk in host.disks:
        seen = host.node["disks"].get(disk.device)
        if not disk.device.startswith("/dev/disk/by-id/"):
            continue
        if seen is None:
            yield Finding(
                host.name,
                f"{disk.place}.device",
                f"{disk.device} does not exist there",
                "compare with `ls -l /dev/disk/by-id/` on the node; is the disk plugged in?",
            )
            continue
        yield from _disk_usable(host.name, disk, seen, settings)
        first = users.setdefault(seen["kernel_name"], disk.place)
        if first != disk.place:
            yield Finding(
                host.name,
                f"{disk.place}.device",
                f"{disk.device} is the same disk as {first}: {seen['kernel_name']}",
                "declare each disk only once",
            )


def _disk_usable(host: str, disk: Disk, seen: Data, settings: Data) -> Iterator[Finding]:
    variable = f"{disk.place}.device"
    shown = f"{disk.device} ({seen['kernel_name']})"
    if "/" in seen["mounts"]:
        yield Finding(host, variable, f"{shown} carries the running system", "name another disk")
        return
    if seen["type"] == "part":
        yield Finding(host, variable, f"{shown} is a partition", "name a whole disk")
    if seen["unreadable"]:
        yield Finding(host, variable, f"{shown} cannot be read: {seen['unreadable']}", "replace the disk or its cable")
        return
    if seen["read_only"]:
        yield Finding(host, variable, f"{shown} is read-only", "name a disk that can be written")
    if seen["size"] < settings["disk_min_bytes"]:
        yield Finding(
            host,
            variable,
            f"{shown} has {_size(seen['size'])}, {_size(settings['disk_min_bytes'])} are needed",
            "name a bigger disk, or lower preflight_disk_min_bytes",
        )
    label = str((seen["luks"] or {}).get("label") or "")
    if disk.name and label.startswith(MAPPER) and label != MAPPER + disk.name:
        yield Finding(
            host,
            variable,
            f"{shown} is another disk of a cluster: it is labelled {label}, and {disk.name} is declared",
            "let `device` name the disk that is meant; disks keep the `name` that they were given first",
        )
        return
    found = _strangers(disk, seen)
    if found:
        yield Finding(
            host,
            variable,
            f"{shown} is neither blank nor a disk of this cluster: {found}",
            "name another disk; if nothing on this one is needed any more, unmount it and erase it yourself: "
            f"`wipefs --all {disk.device}`",
        )


def _strangers(disk: Disk, seen: Data) -> str:
    """Say what is on a disk that this cluster did not put there; an empty string when it is blank or ours."""
    mapper = MAPPER + disk.name
    luks: Data = seen["luks"] or {}
    others = [signature for signature in seen["signatures"] if signature != "crypto_LUKS"]
    if others:
        return f"it holds {', '.join(others)}"
    if seen["holders"] and f"/dev/mapper/{mapper}" not in seen["holders"]:
        return f"it is in use by {', '.join(seen['holders'])}"
    if seen["mounts"] and not luks:
        return f"it is mounted at {', '.join(seen['mounts'])}"
    if not seen["signatures"]:
        return ""
    if luks.get("version") != 2:
        return f"it holds LUKS{luks.get('version', '')}"
    if luks["label"] == mapper or luks["clevis"] or seen["holders"]:
        return ""
    return f"it holds a LUKS2 device with the label {luks['label'] or '(none)'} that is not bound to tang, not {mapper}"


def gluster_encrypted(host: Host, settings: Data) -> Iterator[Finding]:
    """No pool is there that talks without TLS: the first node that is told to use it is cut off from the others."""
    volumes = host.node["plain_volumes"]
    if volumes:
        yield Finding(
            host.name,
            "storage_volumes",
            f"a GlusterFS without TLS has the volumes {', '.join(volumes)}",
            "end what uses them, stop the volumes, `systemctl stop glusterd` on all nodes, "
            "`touch /var/lib/glusterd/secure-access` on all nodes, and run this again",
        )


SITE_CHECKS: tuple[Check, ...] = (
    disks_declared,
    volumes_have_disks,
    volumes_readable,
    volumes_understood,
    volumes_buildable,
    format_declared,
    sectors_agree,
)
NODE_CHECKS: tuple[HostCheck, ...] = (disks_usable, gluster_encrypted)
