# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a brick hold, and whether its copy on another host holds the same. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

Entry = dict[str, Any]
Contents = Mapping[str, Mapping[str, Entry]]
# What is gluster's own at the top of a brick, and another on each.
INTERNAL = ".glusterfs"
OWN = (INTERNAL, ".trashcan")
CHUNK = 1 << 22
KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
# An arbiter has names and no data.
OF_ALL = ("kind", "mode", "owner", "group", "gfid", "attributes")
OF_DATA = (*OF_ALL, "size", "content")
# A sharded file's size is in an attribute of its first shard. Others, as of what waits to be healed, differ by design.
COMPARED = ("trusted.glusterfs.shard.", "trusted.glusterfs.dht.linkto", "system.posix_acl_", "user.")


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
    """Yield a brick and every path below it."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise ClusterError(f"{error.filename} cannot be read: {error.strerror}; look at the disk below it (dmesg)")

    yield brick
    for folder, folders, files in os.walk(brick, onerror=fail):
        if folder == brick:
            folders[:] = [name for name in folders if not name.startswith(OWN)]
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
        **_attributes(path),
        "content": content,
    }


def _attributes(path: str) -> dict[str, Optional[str]]:
    def value(name: str) -> bytes:
        return os.getxattr(path, name, follow_symlinks=False)

    names = os.listxattr(path, follow_symlinks=False)
    compared = {name: value(name).hex() for name in sorted(names) if name.startswith(COMPARED)}
    return {
        "gfid": value("trusted.gfid").hex() if "trusted.gfid" in names else None,
        "attributes": hashlib.sha256(repr(compared).encode()).hexdigest() if compared else None,
    }


def _checksum(path: str) -> str:
    """Return the SHA-256 of a file as it is on the disk, and not as the page cache has what was just written."""
    digest = hashlib.sha256()
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fdatasync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
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
    :raises ClusterError: gluster has no such brick, or it, or every other one of its set, does not run.
    """
    members = {(one["host"], one["path"]): (volume, one) for volume in volumes.values() for one in volume["bricks"]}
    unknown = sorted(":".join(place) for place in bricks if place not in members)
    if unknown:
        known = ", ".join(sorted(":".join(place) for place in members))
        raise ClusterError(f"gluster has no brick {', '.join(unknown)}; it has {known or 'none'}")
    found = [_pair(*members[place]) for place in sorted(bricks)]
    return [pair for pair in found if pair is not None]


def _pair(volume: Mapping[str, Any], brick: Mapping[str, Any]) -> Optional[dict[str, Any]]:
    if not volume["layout"].startswith("replica"):
        return None
    size = int(volume["layout"].split()[1])
    arbiters = _places(volume["bricks"][size - 1 :: size] if "arbiter" in volume["layout"] else [])
    (place,) = _places([brick])
    others = _places(one for one in volume["bricks"] if one["set"] == brick["set"] and one["online"])
    there = [other for other in others if other not in (place, *arbiters)]
    if not brick["online"]:
        raise ClusterError(f"{':'.join(place)} does not run")
    if not there:
        raise ClusterError(f"{':'.join(place)}: no other brick of its set runs")
    return {"brick": place, "copy": there[0], "data": place not in arbiters, "arbiter": bool(arbiters)}


def _places(bricks: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(brick["host"], brick["path"]) for brick in bricks]


def differences(pairs: Sequence[Mapping[str, Any]], look: Mapping[str, Contents]) -> list[str]:
    """Return the paths of which one brick of a pair has not what the other has.

    :param look: by host and brick what :func:`read_brick` found.
    """
    return sorted({name for pair in pairs for name in _differing(pair, *_sides(pair, look))})


def _sides(pair: Mapping[str, Any], look: Mapping[str, Contents]) -> tuple[Mapping[str, Entry], Mapping[str, Entry]]:
    (host, path), (other, there) = pair["brick"], pair["copy"]
    return look[host][path], look[other][there]


def _differing(pair: Mapping[str, Any], left: Mapping[str, Entry], right: Mapping[str, Entry]) -> list[str]:
    fields = OF_DATA if pair["data"] else OF_ALL

    def facts(entry: Optional[Entry]) -> Optional[list[Any]]:
        return None if entry is None else [entry[field] for field in fields]

    return [name for name in sorted({*left, *right}) if facts(left.get(name)) != facts(right.get(name))]


def verdict(pairs: Sequence[Mapping[str, Any]], looks: Sequence[Mapping[str, Contents]]) -> dict[str, Any]:
    """Return what looks tell, the first of which is at everything and the later ones at what differed.

    ``same`` counts paths; ``different`` and ``busy`` have a sentence for each. Clients write while bricks are read, one
    after the other: what has changed between the last two looks is busy, and cannot be judged.
    """
    told = [_judge(pair, looks) for pair in pairs]
    return {
        "different": [sentence for one in told for sentence in one["different"]],
        "busy": [sentence for one in told for sentence in one["busy"]],
        "same": sum(one["same"] for one in told),
    }


def _judge(pair: Mapping[str, Any], looks: Sequence[Mapping[str, Contents]]) -> dict[str, Any]:
    first, *_others, was, now = sides = [_sides(pair, look) for look in looks]
    still = frozenset.intersection(*(frozenset(_differing(pair, *one)) for one in sides))
    stale = {name for name in still if all(was[side].get(name) == now[side].get(name) for side in (0, 1))}
    brick, copy = (":".join(pair[which]) for which in ("brick", "copy"))
    return {
        "different": [f"{name} on {brick} and on {copy}" for name in sorted(stale)],
        "busy": [f"{name} on {brick}" for name in sorted(still - stale)],
        "same": len({*first[0], *first[1]}) - len(still),
    }
