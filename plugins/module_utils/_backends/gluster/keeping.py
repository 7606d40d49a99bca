# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of glusterd's configuration from before the bricks of a volume change, for the day on which that goes wrong.

It is the same on all hosts of a pool but for ``glusterd.info`` and ``peers``, so one host's copy is enough.
"""

from __future__ import annotations

import os
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.changes import Change
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing

NEWEST = 20
TOPOLOGY = {"add-brick", "delete", "remove-brick", "replace-brick", "reset-brick"}


def changes_bricks(change: Change) -> bool:
    """Say whether a change is one after which an old configuration may be missed."""
    return any(isinstance(call, tuple) and TOPOLOGY.intersection(call) for call in change.calls)


@dataclass(frozen=True)
class Kept:
    """Keep the configuration as it is now, in ``directory``."""

    directory: str

    def act(self, cli: Cli) -> None:
        """Write an archive, and forget all but the newest."""
        folder = Path(self.directory)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = time.strftime("glusterd-%Y%m%dT%H%M%SZ.tar.gz", time.gmtime())
        with replacing(folder / name, 0o600) as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for path in _files(cli.workdir):
                try:
                    archive.add(path, arcname=os.path.relpath(path, cli.workdir), recursive=False)
                except FileNotFoundError:
                    # The daemon works on and gives its files new names.
                    continue
        for old in sorted(folder.glob("glusterd-*.tar.gz"))[:-NEWEST]:
            old.unlink()


def _files(directory: str) -> Iterator[str]:
    for place, _folders, names in os.walk(directory):
        yield from (os.path.join(place, name) for name in sorted(names))
