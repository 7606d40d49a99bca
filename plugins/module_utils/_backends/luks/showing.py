# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS devices as people see them: without secrets."""

from __future__ import annotations

from collections.abc import Collection
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    Binder,
    Disk,
    Json,
    Key,
    Policy,
    Servers,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.proving import Prover
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._errors import NotYet

NO_KEY = Key()
TORN = (
    "of which one copy is not whole, or older than the other: a run was killed, or the disk is failing; see what "
    "smartctl --all tells of it"
)


def shown(disk: Disk, servers: Servers, urls: Collection[str] = ()) -> Json:
    """Return one device as plain data.

    :param urls: the servers of the declared policy.
    """
    first = disk.live[0] if disk.live else None
    keys = [
        {"url": key["url"], "kid": key["kid"], "advertised": _advertises(servers, key)}
        for binding in disk.live
        for key in binding.tang_keys
    ]
    asked = {*urls, *(key["url"] for key in keys)}
    return {
        "kind": disk.kind,
        "size": disk.size,
        "sector_size": disk.sector_size or None,
        "uuid": disk.uuid or None,
        "mapper": disk.mapper or None,
        "torn": disk.torn,
        "keyslots": list(disk.keyslots),
        "keyslot": first.keyslot if first else None,
        "token_id": first.token if first else None,
        "policy": first.policy if first else None,
        "tang_keys": keys,
        "rotated_keys": sorted(key["kid"] for key in keys if key["advertised"] is False),
        "orphan_tokens": [binding.token for binding in disk.orphans],
        "unreachable": sorted(url for url in asked if url in servers and servers[url] is None),
        "header_backup": {"path": disk.backup, "sha256": disk.sha256 or None} if disk.saved else None,
    }


def _advertises(servers: Servers, key: Json) -> Optional[bool]:
    known = servers.get(key["url"])
    return None if known is None else key["kid"] in known


def _unlocks(reader: Reader, prover: Prover[Policy], device: str, disk: Disk) -> bool:
    """Tell whether a device would open at boot: by the first keyslot whose binding yields anything, and no other."""
    slots = sorted(one.keyslot for one in disk.own if one.keyslot is not None)
    yielded = (prover.secret(device, slot) for slot in slots)
    return reader.opens(device, Key(next(filter(None, yielded), "")))


def info(
    reader: Reader,
    binder: Binder[Policy],
    devices: Collection[str],
    *,
    prove: bool = False,
    key: Key = NO_KEY,
    check: bool = False,
) -> Json:
    """Return devices as they are, with what the servers of their own bindings advertise.

    :param prove: tell whether each device would be unlocked at boot.
    :param key: try it on each device, and tell whether it opens it.
    :param check: be content with what can be seen before cryptsetup is installed.
    :raises NotYet: a device carries LUKS, and cryptsetup is not installed.
    """
    names = dict.fromkeys(devices, "")
    try:
        disks = reader.disks(names)
    except NotYet:
        if not check:
            raise
        disks = reader.disks(names, dump=False)
    keys = [key for disk in disks.values() for binding in disk.live for key in binding.tang_keys]
    servers = binder.look({key["url"] for key in keys})
    found = {device: shown(disk, servers) for device, disk in disks.items()}
    if prove:
        for device, disk in disks.items():
            found[device]["unlocks"] = _unlocks(reader, Prover(binder, reader), device, disk)
    if key:
        for device, disk in disks.items():
            found[device]["opens"] = disk.kind == "luks2" and reader.opens(device, key)
    warnings = [f"{device} carries a header {TORN}" for device, disk in disks.items() if disk.torn]
    return {"devices": found, **({"warnings": warnings} if warnings else {})}
