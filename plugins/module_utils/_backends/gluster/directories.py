# SPDX-License-Identifier: GPL-3.0-or-later
"""The directories of bricks, as they are on this host."""

from __future__ import annotations

import os
import uuid

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import VOLUME_ID, Directory


def look_at(path: str) -> Directory:
    """Return what matters of the directory ``path`` of a brick, which gluster makes inside of one that is there."""
    parent = os.path.dirname(path)
    return Directory(
        exists=os.path.isdir(parent),
        on_root=os.path.isdir(parent) and os.stat(parent).st_dev == os.stat("/").st_dev,
        is_mountpoint=os.path.ismount(path),
        volume_id=_volume_id(path),
    )


def _volume_id(path: str) -> str:
    try:
        mark = os.getxattr(path, VOLUME_ID)
    except OSError:
        return ""
    return str(uuid.UUID(bytes=mark)) if len(mark) == 16 else "unknown"
