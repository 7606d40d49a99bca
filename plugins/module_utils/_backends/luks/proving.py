# SPDX-License-Identifier: GPL-3.0-or-later
"""Letting bindings unlock their disks, as at boot: the header does not tell whether they still do."""

from __future__ import annotations

from dataclasses import replace
from typing import Generic, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.headers import unmended
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    Binder,
    Disk,
    Key,
    Policy,
    Servers,
    Wish,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._errors import CommandFailed, NotYet


class Prover(Generic[Policy]):
    """Tells which bindings are worth nothing any more. Writes to no disk."""

    def __init__(self, binder: Binder[Policy], reader: Reader) -> None:
        self._binder = binder
        self._reader = reader
        self._proven: set[tuple[str, int]] = set()

    def look(self, wish: Wish[Policy], disk: Disk, servers: Servers) -> Disk:
        """Return the disk with what is known of its bindings."""
        if wish.state == "absent" or not disk.live:
            return disk
        try:
            return self._dead(wish, self._foreign(wish.device, disk), servers)
        except NotYet:
            # clevis is not installed: what it did not make is left alone, and nothing else is known.
            found = (replace(one, foreign=not one.by_clevis) for one in disk.bindings)
            return replace(disk, bindings=tuple(found))

    def _foreign(self, device: str, disk: Disk) -> Disk:
        """Find tokens in whose keyslot somebody has put another key."""
        found = {one.token for one in disk.live if not one.by_clevis and not self.proves(device, one.keyslot)}
        return replace(disk, bindings=tuple(replace(one, foreign=one.token in found) for one in disk.bindings))

    def _dead(self, wish: Wish[Policy], disk: Disk, servers: Servers) -> Disk:
        """Find bindings that have the declared policy and unlock nothing, although a new one would."""
        policy = wish.policy
        if policy is None or wish.state == "unbound" or self._binder.faults(policy):
            return disk
        if self._binder.silent(policy, servers):
            return disk
        wanted = self._binder.canonical(policy)
        slots = [one.keyslot for one in disk.own if self._binder.agree(one.policy, wanted)]
        failing = [slot for slot in slots if slot is not None and not self.proves(wish.device, slot)]
        if not failing:
            return disk
        # What forbids a new binding comes first: clevis would ask the terminal about a key that is not pinned.
        doubt = "; ".join(self._binder.obstacles(policy, servers)) or self._binder.fails(policy)
        if doubt:
            return replace(disk, doubt=doubt)
        # Once more: the server may have been started in between.
        return replace(disk, dead=tuple(slot for slot in failing if not self.proves(wish.device, slot)))

    def proves(self, device: str, slot: Optional[int]) -> bool:
        """Tell whether a binding unlocks the device in time; one that was seen to is not tried again."""
        if slot is None:
            return False
        try:
            if (device, slot) not in self._proven and self._opens(device, slot):
                self._proven.add((device, slot))
        except CommandFailed:
            return False
        return (device, slot) in self._proven

    def _opens(self, device: str, slot: int) -> bool:
        """Tell whether what a binding yields opens its own keyslot."""
        return self._reader.opens(device, Key(self.secret(device, slot)), slot)

    def secret(self, device: str, slot: int) -> str:
        """Return what a binding yields, whatever it opens; an empty text when it does not decrypt."""
        with unmended(device) as path:
            return self._binder.secret(path, slot)
