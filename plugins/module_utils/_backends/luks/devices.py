# SPDX-License-Identifier: GPL-3.0-or-later
"""All data disks of a node: LUKS2, one proven binding each, the header's backup, and the mapper as declared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.changing import Changer
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.declarations import faults
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    Binder,
    Disk,
    Json,
    Policy,
    State,
    Wish,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.planning import DiskPlan
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.proving import Prover
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.showing import shown
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import Refused
from ansible_collections.personal.cluster.plugins.module_utils._run import Run


class LuksDevices(Generic[Policy]):
    """See the module luks_clevis_bind for the parameters."""

    def __init__(self, wishes: Sequence[Wish[Policy]], binder: Binder[Policy], run: Run, reader: Reader) -> None:
        self._wishes = wishes
        self._binder = binder
        self._reader = reader
        self._prover = Prover(binder, reader)
        folders = dict.fromkeys(["", *(wish.header_backup_dir for wish in wishes)])
        self._readers = {folder: reader.keeping(folder) for folder in folders}
        self._changers = {folder: Changer(run, one, binder, self._prover) for folder, one in self._readers.items()}
        self._policies_before: Optional[dict[str, Optional[Json]]] = None

    def read(self) -> State:
        """Look at all devices, mappers and servers once.

        :raises NotYet: a device carries LUKS, and cryptsetup is not installed.
        :raises Refused: the declaration makes no sense, whatever is on the disks.
        """
        return self._look(dump=True)

    def blank(self) -> State:
        """Return what can be seen without cryptsetup."""
        return self._look(dump=False)

    def _look(self, dump: bool) -> State:
        readers = self._readers.values()
        wrong = faults(self._wishes, [one.backup_dir for one in readers])
        wrong = wrong or [why for one in readers for why in one.misplaced()]
        if wrong:
            raise Refused(wrong)
        disks = self._disks(dump)
        for wish in self._wishes:
            if wish.erase:
                backups = tuple(str(path) for path in self._readers[wish.header_backup_dir].remains(wish.erase))
                disks[wish.device] = replace(disks[wish.device], left_backups=backups)
        servers = self._binder.look({url for wish in self._wishes for url in self._urls(wish)})
        if dump:
            proven = {wish.device: self._prover.look(wish, disks[wish.device], servers) for wish in self._wishes}
            disks = {wish.device: self._tried(wish, proven[wish.device]) for wish in self._wishes}
            disks = {wish.device: self._missed(wish, disks[wish.device]) for wish in self._wishes}
        if self._policies_before is None:
            self._policies_before = {device: shown(disk, {})["policy"] for device, disk in disks.items()}
        exposed = {path for one in readers for path in one.exposed()}
        return State(disks, servers, self._reader.mappers(), tuple(sorted(exposed)))

    def _disks(self, dump: bool) -> dict[str, Disk]:
        disks: dict[str, Disk] = {}
        for folder, reader in self._readers.items():
            names = {wish.device: wish.name for wish in self._wishes if wish.header_backup_dir == folder}
            disks |= reader.disks(names, dump=dump)
        return disks

    def _tried(self, wish: Wish[Policy], disk: Disk) -> Disk:
        """Try the declared keys where it matters which keyslots they open: each attempt takes as long as an unlock."""
        wants_key = wish.remove_passphrase or wish.state == "unbound"
        told_by_header = disk.kind != "luks2" or bool(disk.reencryption) or wish.state == "absent"
        if told_by_header or not (wish.recovery or wants_key):
            return disk
        recovery = tuple(slot for slot in disk.other_slots if self._reader.opens(wish.device, wish.recovery, slot))
        if not wants_key:
            return replace(disk, recovery_slots=recovery)
        rest = [slot for slot in disk.other_slots if slot not in recovery]
        keys = tuple(slot for slot in rest if self._reader.opens(wish.device, wish.key, slot))
        return replace(disk, recovery_slots=recovery, key_slots=keys)

    def _missed(self, wish: Wish[Policy], disk: Disk) -> Disk:
        """Find the keyslots that were lost, and that no declared key replaces; where none was, no key is tried."""
        lost = tuple(rival for rival in disk.rivals if rival.lost)
        if not lost or wish.state == "absent" or wish.remove_passphrase:
            return disk
        known = any(self._reader.opens(wish.device, key) for key in wish.keys)
        return disk if known else replace(disk, missed=lost)

    def _urls(self, wish: Wish[Policy]) -> Sequence[str]:
        bound = wish.state not in ("unbound", "absent")
        return sorted(self._binder.urls(wish.policy)) if bound and wish.policy is not None else []

    def plan(self, state: State) -> Plan[State]:
        """Format, bind, clean up, back up, open or close, or give up each device in turn."""
        plan: Plan[State] = Plan(state)
        plan.refusals += self._copies(state) + self._twins(state)
        plan.steps += [Step(f"let root alone read {path}", partial(Changer.cover, path)) for path in state.exposed]
        disks = {wish.device: self._planned(wish, state, plan) for wish in self._wishes}
        plan.predicted = replace(state, disks={**state.disks, **disks}, exposed=())
        return plan

    def _planned(self, wish: Wish[Policy], state: State, plan: Plan[State]) -> Disk:
        changer, reader = self._changers[wish.header_backup_dir], self._readers[wish.header_backup_dir]
        return DiskPlan(wish, state, plan, self._binder, changer, reader).make()

    def _copies(self, state: State) -> list[str]:
        """Refuse disks with one header between them: the backup could be that of either."""
        disks: dict[str, list[str]] = {}
        for wish in self._wishes:
            disks.setdefault(state.disks[wish.device].uuid, []).append(wish.device)
        return [
            f"{' and '.join(devices)} carry the same LUKS header {uuid}: one is a copy; take it out of the machine, or "
            "give it another one with cryptsetup luksUUID"
            for uuid, devices in disks.items()
            if uuid and len(devices) > 1
        ]

    @staticmethod
    def _twins(state: State) -> list[str]:
        """Refuse disks whose header is open on another one, declared or not."""
        return [
            f"{device} carries the LUKS header {disk.uuid}, which is open as {disk.twin} on another disk: one is a "
            "copy; take it out of the machine, or give it another one with cryptsetup luksUUID; where that disk is "
            f"gone, cryptsetup close {disk.twin}"
            for device, disk in state.disks.items()
            if disk.twin
        ]

    def view(self, state: State) -> dict[str, Any]:
        """Return the devices as plain data."""
        before = self._policies_before or {}
        return {
            "devices": {
                wish.device: {
                    **shown(state.disks[wish.device], state.servers, self._urls(wish)),
                    "policy_before": before.get(wish.device),
                    "recovery_keyslot": next(iter(state.disks[wish.device].recovery_slots), None),
                }
                for wish in self._wishes
            }
        }
