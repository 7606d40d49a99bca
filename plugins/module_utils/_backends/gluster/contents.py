# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a brick hold, and whether its copy on another host holds the same. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

Entry = dict[str, Any]
Contents = Mapping[str, Mapping[str, Entry]]
# What is gluster's own, and another on each brick.
INTERNAL = ".glusterfs"
CHUNK = 1 << 22
KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
# An arbiter has names and no data.
OF_ALL = ("kind", "mode", "owner", "group", "gfid")
OF_DATA = (*OF_ALL, "size", "content")


def read_brick(brick: str, only: Optional[Collection[str]] = None) -> dict[str, Entry]:
    """Return everything on a brick by its path there, as text; what is removed meanwhile is left out.

    :param only: paths there; the others are not read.
    :raises ClusterError: it is no brick, or a file cannot be read.
    """
    if not os.path.isdir(os.path.join(brick, INTERNAL)):
        raise ClusterError(f"{brick} is no brick, or its filesystem is not mounted: it has no {INTERNAL}")
    found = {}
    for path in _paths(brick):
        name = os.fsencode(os.path.relpath(path, brick)).decode("utf-8", "backslashreplace")
        if only is not None and name not in only:
            continue
        try:
            found[name] = _entry(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ClusterError(f"{path} cannot be read: {error.strerror}; look at the disk below it (dmesg)") from error
    return found


def _paths(brick: str) -> Iterator[str]:
    """Yield every path below a brick."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise ClusterError(f"{error.filename} cannot be read: {error.strerror}; look at the disk below it (dmesg)")

    for folder, folders, files in os.walk(brick, onerror=fail):
        if folder == brick:
            folders[:] = [name for name in folders if not name.startswith(INTERNAL)]
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted((*folders, *files)))


def _entry(path: str) -> Entry:
    found = os.lstat(path)
    kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), "other")
    content = None
    if kind == "file":
        content = _checksum(path)
    elif kind == "link":
        content = os.fsencode(os.readlink(path)).decode("utf-8", "backslashreplace")
    return {
        "kind": kind,
        "mode": f"{stat.S_IMODE(found.st_mode):04o}",
        "owner": found.st_uid,
        "group": found.st_gid,
        "size": found.st_size if kind == "file" else 0,
        "mtime": found.st_mtime_ns,
        "gfid": _gfid(path),
        "content": content,
    }


def _gfid(path: str) -> Optional[str]:
    try:
        return os.getxattr(path, "trusted.gfid", follow_symlinks=False).hex()
    except OSError:
        return None


def _checksum(path: str) -> str:
    """Return the SHA-256 of a file, of which nothing stays in the page cache for it."""
    digest = hashlib.sha256()
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        while chunk := os.read(handle, CHUNK):
            digest.update(chunk)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    return digest.hexdigest()


def copies(volumes: Mapping[str, Mapping[str, Any]], bricks: Collection[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return each of ``bricks`` that is of a volume with copies, and the first other brick that has all that it has.

    :param volumes: as gluster_volume_info tells of them.
    :param bricks: host and path of each.
    :raises ClusterError: no other brick of its set runs.
    """
    found = []
    for volume in volumes.values():
        if not volume["layout"].startswith("replica"):
            continue
        members = volume["bricks"]
        size = int(volume["layout"].split()[1])
        arbiters = members[size - 1 :: size] if "arbiter" in volume["layout"] else []
        for brick in members:
            place = (brick["host"], brick["path"])
            if place not in bricks:
                continue
            others = [one for one in members if one["set"] == brick["set"] and one is not brick]
            there = [one for one in others if one["online"] and one not in arbiters]
            if not there:
                raise ClusterError(f"{':'.join(place)}: no other brick of its set runs")
            other = (there[0]["host"], there[0]["path"])
            found.append({"brick": place, "copy": other, "data": brick not in arbiters})
    return found


def differences(pairs: Sequence[Mapping[str, Any]], hosts: Mapping[str, Contents]) -> list[list[str]]:
    """Return for each pair the paths of which one brick has not what the other has.

    :param hosts: by host and brick what :func:`read_brick` found.
    """
    return [_differing(pair, *_sides(pair, hosts)) for pair in pairs]


def _sides(pair: Mapping[str, Any], hosts: Mapping[str, Contents]) -> tuple[Mapping[str, Entry], Mapping[str, Entry]]:
    (host, path), (other, there) = pair["brick"], pair["copy"]
    return hosts[host][path], hosts[other][there]


def _differing(pair: Mapping[str, Any], left: Mapping[str, Entry], right: Mapping[str, Entry]) -> list[str]:
    fields = OF_DATA if pair["data"] else OF_ALL

    def facts(entry: Optional[Entry]) -> Optional[list[Any]]:
        return None if entry is None else [entry[field] for field in fields]

    return [name for name in sorted({*left, *right}) if facts(left.get(name)) != facts(right.get(name))]


def verdict(
    pairs: Sequence[Mapping[str, Any]], first: Mapping[str, Contents], second: Mapping[str, Contents]
) -> dict[str, Any]:
    """Return what two looks tell: ``same`` and ``busy`` count paths, ``different`` has a sentence for each.

    Clients write while bricks are read, one after the other. What differed, and was neither the same nor another at the
    second look, differs; what has changed since the first look is busy, and nothing is known of it.
    """
    told = [_judge(pair, first, second) for pair in pairs]
    return {
        "different": [sentence for one in told for sentence in one["different"]],
        "busy": sum(one["busy"] for one in told),
        "same": sum(one["same"] for one in told),
    }


def _judge(pair: Mapping[str, Any], first: Mapping[str, Contents], second: Mapping[str, Contents]) -> dict[str, Any]:
    was, now = _sides(pair, first), _sides(pair, second)
    before = frozenset(_differing(pair, *was))
    still = [name for name in _differing(pair, *now) if name in before]
    stale = [name for name in still if all(was[side].get(name) == now[side].get(name) for side in (0, 1))]
    brick, copy = (":".join(pair[which]) for which in ("brick", "copy"))
    return {
        "different": [f"{name} on {brick} and on {copy}" for name in stale],
        "busy": len(still) - len(stale),
        "same": len({*was[0], *was[1]}) - len(still),
    }
