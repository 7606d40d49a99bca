# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a disk its LUKS2 header back, and only that disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.headers import (
    BINARY_HEADER,
    SECOND,
    copies,
    is_whole,
    metadata,
    sequence,
    uuids,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.kernel import Kernel, out_of_use
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import LUKS, OWN_LABEL
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import (
    UUID_LENGTH,
    backups_of,
    types,
    wipefs,
)
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

SECONDS = 600.0


@dataclass(frozen=True)
class Wanted:
    """The header that the disk shall have, and the disk that it belongs to."""

    uuid: str
    size: int
    sha256: str


@dataclass(frozen=True)
class State:
    """The disk as it is.

    ``uuids`` are those of all remains of headers, ``intact`` whether one copy is whole, ``current`` whether that is a
    copy of the wanted header, whose keyslots may be damaged nevertheless. ``newer`` is the backup that this node has
    made of a later state of the wanted header. ``signatures`` are those of all but a header.
    """

    size: int
    sha256: str = ""
    uuids: tuple[str, ...] = ()
    intact: bool = False
    current: bool = False
    newer: str = ""
    signatures: tuple[str, ...] = ()
    users: tuple[str, ...] = ()


class DiskHeader:
    """The header of one disk; see the module luks_header for the parameters."""

    def __init__(
        self,
        device: str,
        name: str,
        wanted: Wanted,
        run: Run,
        *,
        source: str,
        replaces: Optional[str],
        backup_dir: str,
        kernel: Optional[Kernel] = None,
    ) -> None:
        self._device = device
        self._name = name
        self._wanted = wanted
        self._run = run
        self._source = Path(source)
        self._replaces = replaces
        self._backup_dir = Path(backup_dir)
        self._kernel = kernel or Kernel()

    def read(self) -> State:
        """Read as much of the disk as a header takes, and change nothing."""
        backup = self._backup()
        try:
            with open(self._device, "rb") as disk:
                data = disk.read(max(len(backup), 2 * SECOND[-1]))
                size = disk.seek(0, os.SEEK_END)
        except OSError as error:
            raise ClusterError(
                f"{self._device} cannot be read: {error.strerror}; check the path, the disk and its cable"
            ) from error
        found = list(copies(data))
        whole = [copy for copy in found if is_whole(copy)]
        heads = [copy[:BINARY_HEADER] for copy in copies(backup)]
        return State(
            size=size,
            sha256=hashlib.sha256(data[: len(backup)]).hexdigest(),
            uuids=uuids(data),
            intact=bool(whole),
            current=any(copy[:BINARY_HEADER] in heads for copy in whole),
            newer=self._newer(backup),
            signatures=self._signatures(),
            users=self._users(),
        )

    def blank(self) -> State:
        """Return what can be seen without cryptsetup, which is all."""
        return self.read()

    def _backup(self) -> bytes:
        try:
            data = self._source.read_bytes()
        except OSError as error:
            raise ClusterError(f"{self._source} cannot be read: {error.strerror}") from error
        if hashlib.sha256(data).hexdigest() != self._wanted.sha256:
            raise ClusterError(f"{self._source} is not the header that was announced; nothing was written")
        return data

    def _newer(self, backup: bytes) -> str:
        kept = self._backup_dir / f"{OWN_LABEL}{self._name}-{self._wanted.uuid}.img"
        return str(kept) if sequence(metadata(str(kept))) > sequence(backup) else ""

    def _signatures(self) -> tuple[str, ...]:
        rows = wipefs(self._run, [self._device])[self._device]
        return tuple(signature for signature in types(rows) if signature != LUKS)

    def _users(self) -> tuple[str, ...]:
        """Return what holds the disk, but for the mapper of the wanted header, whose data stays what it is."""
        uuid = self._wanted.uuid.replace("-", "")
        own = [f"device {mapper.name}" for mapper in self._kernel.mappers() if mapper.uuid == uuid]
        return tuple(user for user in self._kernel.users_of(self._device) if user not in own)

    def plan(self, state: State) -> Plan[State]:
        """Refuse what is not this disk or not damaged; else keep what is there, and restore."""
        plan = Plan(state)
        if state.sha256 == self._wanted.sha256:
            return plan
        plan.refusals += self._refusals(state)
        keep = f"keep what is at the beginning of {self._device} in {self._backup_dir}"
        plan.steps.append(Step(keep, self._keep))
        sentence = f"restore the header of {self._name}, UUID {self._wanted.uuid}, on {self._device}"
        plan.steps.append(Step(sentence, self._restore))
        plan.predicted = State(state.size, self._wanted.sha256, (self._wanted.uuid,), True, True)
        return plan

    def _refusals(self, state: State) -> Iterator[str]:
        device, wanted = self._device, self._wanted
        if state.size != wanted.size:
            yield f"{device} has {state.size} bytes, the disk of this header had {wanted.size}; it is another disk"
        if state.users:
            yield (
                f"{device} is in use by {', '.join(state.users)}, and a header would destroy that; "
                f"{out_of_use(state.users, device)}"
            )
        others = [uuid for uuid in state.uuids if uuid != wanted.uuid]
        if others:
            yield f"{device} carries the header {', '.join(others)}, not {wanted.uuid}; it is another disk"
        elif self._replaces == self._name:
            return
        elif self._later != wanted.uuid:
            yield (
                f"the latest header that this node has kept of {self._name} has the UUID {self._later}, not "
                f"{wanted.uuid}: the disk was replaced since the bundle was written. What the node has kept is "
                "restored by cryptsetup luksHeaderRestore (docs/encryption.md); if it shall be the other one, name it: "
                f"replace={self._name}"
            )
        elif state.newer:
            yield (
                f"the header to restore is older than {state.newer}, which this node has kept since: keys, or the "
                "volume key itself, were changed in between. That one is restored by cryptsetup luksHeaderRestore "
                f"--header-backup-file {state.newer} {device} (docs/encryption.md); if it shall be the older one all "
                f"the same, name it: replace={self._name}"
            )
        elif state.intact and not state.current:
            yield (
                f"the header of {device} is intact, and differs from the one to restore: keys were added or removed "
                f"since; if it shall be replaced all the same, name it: replace={self._name}"
            )
        elif state.signatures:
            beside = "beside what is left of its header" if state.uuids else "and no remains of a header"
            yield (
                f"{device} holds {', '.join(state.signatures)} {beside}; if that may be lost, name it: "
                f"replace={self._name}"
            )

    @property
    def _later(self) -> str:
        """The UUID of the header that the node has kept last, that of the wanted one when it has none."""
        kept = backups_of(self._backup_dir, f"{OWN_LABEL}{self._name}")
        return kept[-1].stem[-UUID_LENGTH:] if kept else self._wanted.uuid

    def _keep(self) -> None:
        """Copy the place of the header. The name is made of the content: a killed run leaves no second copy.

        The UUID in it lets `erase` find a copy of which the header itself does not tell it any more.
        """
        with open(self._device, "rb") as disk:
            data = disk.read(self._source.stat().st_size)
        self._backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"{self._name}-{self._wanted.uuid}-before-restore-{hashlib.sha256(data).hexdigest()[:12]}.raw"
        target = self._backup_dir / name
        with replacing(target, 0o400) as stream:
            stream.write(data)

    def _restore(self) -> None:
        self._backup()
        argv = ["cryptsetup", "luksHeaderRestore", "--batch-mode", "--header-backup-file", str(self._source)]
        self._run([*argv, self._device], timeout=SECONDS)

    def view(self, state: State) -> dict[str, Any]:
        """Return the disk as plain data."""
        return {
            "size": state.size,
            "sha256": state.sha256 or None,
            "uuids": list(state.uuids),
            "intact": state.intact,
            "signatures": list(state.signatures),
        }
