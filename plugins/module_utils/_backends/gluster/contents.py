# SPDX-License-Identifier: GPL-3.0-or-later
"""What the files of a brick hold. Changes nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

Entry = dict[str, Any]
# What is gluster's own at the top of a brick, and another on each.
INTERNAL = ".glusterfs"
OWN = (INTERNAL, ".trashcan")
CHUNK = 1 << 22
KINDS = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "directory"), (stat.S_ISLNK, "link"))
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
            raise _unreadable(path, error) from error
    return found


def _unreadable(path: str, error: OSError) -> ClusterError:
    return ClusterError(f"{path} cannot be read: {error.strerror}; look at the disk below it (dmesg)")


def _paths(brick: str) -> Iterator[str]:
    """Yield a brick and every path below it."""

    def fail(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(error.filename, error)

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
