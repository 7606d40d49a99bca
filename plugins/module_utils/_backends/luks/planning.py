# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning one LUKS device: what speaks against it, its steps in order, and what they will have made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Generic, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.changing import Changer
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.kernel import out_of_use
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    KEYSLOTS,
    LABEL_LENGTH,
    LUKS,
    OWN_LABEL,
    Binder,
    Binding,
    Disk,
    Json,
    Policy,
    Rival,
    State,
    Wish,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import ASIDE_SECONDS, Reader
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.showing import TORN
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step

# Every label that the role encryption gives begins with it.
# What is formatted, the two last kinds only after they were wiped.
FRESH = ("blank", "unfinished", "foreign", "luks1")
LOST = '"If it is lost" in docs/encryption.md'
NO_SLOT = f"all {KEYSLOTS} keyslots are in use; free one: cryptsetup luksKillSlot"


class DiskPlan(Generic[Policy]):
    """Plans one device into the plan of its node; ``disk`` is the device after the steps so far."""

    def __init__(
        self,
        wish: Wish[Policy],
        state: State,
        plan: Plan[State],
        binder: Binder[Policy],
        changer: Changer[Policy],
        reader: Reader,
    ) -> None:
        self.wish, self.state, self.plan = wish, state, plan
        self.binder, self.changer, self.reader = binder, changer, reader
        self.was = self.disk = state.disks[wish.device]

    def make(self) -> Disk:
        """Add refusals, or steps; return what they lead to."""
        refusals = self._refusals()
        self._refuse(*refusals)
        if self.disk.kind == "unread":
            self._warn("carries LUKS2; what it needs is known once cryptsetup is installed", " ")
        elif not refusals and self.wish.state == "absent":
            self._absent()
        elif not refusals and not (self.wish.state == "unbound" and self.disk.kind in FRESH):
            self._tell_lost()
            self._mend()
            before = len(self.plan.steps)
            self._remove_leftover()
            if self.wish.state == "unbound":
                self._unbind()
            else:
                self._format()
                self._bindings()
                self._recovery()
                self._remove_passphrase()
            self._backup(before)
            self._mapper()
        return self.disk

    def _refuse(self, *reasons: str) -> None:
        self.plan.refusals += [f"{self.wish.device} {reason}" for reason in reasons]

    def _warn(self, text: str, between: str = ": ") -> None:
        self.plan.warnings.append(f"{self.wish.device}{between}{text}")

    def _add(self, sentence: str, call: Callable[..., None], *arguments: Any) -> None:
        self.plan.steps.append(Step(sentence, partial(call, *arguments)))

    # Refusals

    def _refusals(self) -> list[str]:
        wish, disk = self.wish, self.disk
        if disk.kind == "missing":
            away = "does not exist; check the path and the cable"
            return self._erase_refusals() if wish.state == "absent" else [away]
        foreign = self._damage_refusals() + self._foreign_refusals()
        if foreign:
            return foreign
        if disk.label.startswith(OWN_LABEL) and disk.label != wish.name[:LABEL_LENGTH]:
            return [f"is labelled {disk.label}, and {wish.name} is declared; let device and name mean the same disk"]
        if wish.state == "absent":
            return self._mapper_refusals() + self._erase_refusals()
        found = []
        if disk.kind in FRESH and not wish.key and wish.state != "unbound":
            found.append("is blank, and no passphrase was given to format it with")
        if disk.outlived and not wish.replaced and wish.state != "unbound":
            found.append(
                f"carries no LUKS2 header, and {disk.outlived[-1]} is a backup of the one that {wish.name} had: if it "
                "is the same disk, cryptsetup luksHeaderRestore with that file brings back its data, or "
                "restore_header.yml; a new disk takes its place by replace_disk.yml (replaced, encryption_replaced)"
            )
        found += [
            f"carries an older header than {rival.path}, with another volume key: its data would be read, and written, "
            "with a key that is not its own. With the disk closed, cryptsetup luksHeaderRestore --header-backup-file "
            f"{rival.path} {wish.device} brings the newer one back; if the older one is right, move that file away"
            for rival in disk.rivals
            if rival.newer and rival.other_key and rival.path != rival.aside
        ]
        if disk.holds_backups:
            found.append(f"carries {self.reader.backup_dir} itself; keep header backups on another disk")
        if wish.policy is not None and wish.state != "unbound":
            found += [f"cannot be bound: {fault}" for fault in self.binder.faults(wish.policy)]
        return found + self._mapper_refusals()

    def _damage_refusals(self) -> list[str]:
        if self.wish.state == "absent":
            return []
        if self.disk.reencryption:
            return [
                f"is being reencrypted ({self.disk.reencryption}), and is left alone; bring that to its end first: "
                f"cryptsetup reencrypt --resume-only {self.wish.device}"
            ]
        if self.disk.keyless:
            return [
                "carries LUKS2 without a key, and was not being formatted: restore its header with restore_header.yml, "
                "or give it up: state absent with erase"
            ]
        if self.disk.kind != "damaged":
            return []
        others = f" beside {', '.join(self.disk.beside)}" if self.disk.beside else ""
        return [
            f"carries LUKS2 with a damaged header{others}, and is never wiped; mend it with cryptsetup repair, which "
            "needs one whole copy of the header, or with restore_header.yml, or give it up: state absent with erase"
        ]

    def _foreign_refusals(self) -> list[str]:
        wish, disk = self.wish, self.disk
        if disk.kind not in FRESH or (wish.state == "absent" and disk.kind != "luks1"):
            return []
        held = {"luks1": "is LUKS1", "foreign": f"holds data ({', '.join(disk.signatures)})"}.get(disk.kind, "")
        if disk.users:
            words = [*filter(None, [held]), f"is in use by {', '.join(disk.users)}"]
            return [" and ".join(words) + ("; what is in use is never wiped" if wish.force_wipe else "")]
        if disk.kind in ("blank", "unfinished") or (wish.force_wipe and wish.state not in ("unbound", "absent")):
            return []
        if disk.kind == "luks1" and wish.state in ("unbound", "absent"):
            return ["is LUKS1, which is left alone; erase it by hand: cryptsetup erase, then wipefs --all"]
        convert = "; convert it with cryptsetup convert --type luks2, or," if disk.kind == "luks1" else ";"
        return [
            f"{held}{convert} if nothing on it is needed, make it blank: wipefs --all {wish.device} (where the module "
            "is called by itself, force_wipe does that)"
        ]

    def _erase_refusals(self) -> list[str]:
        wish, disk = self.wish, self.disk
        names = [name for name, uuid in self.state.mappers.items() if uuid == wish.erase.replace("-", "")]
        if wish.erase and disk.uuid and disk.kind in ("luks2", "unfinished", "damaged") and disk.uuid != wish.erase:
            return [f"carries the LUKS2 header {disk.uuid}, and erase names {wish.erase}; nothing is erased"]
        users = [user for user in disk.users if user != f"device {disk.mapper}"]
        if wish.erase and users and disk.kind in ("unfinished", "damaged"):
            remedy = out_of_use(users, wish.device)
            return [f"is in use by {', '.join(users)}, and what is in use is not erased; {remedy}"]
        if names and disk.uuid != wish.erase:
            return [f"does not carry {wish.erase}, which is open as {names[0]}; compare device and erase"]
        if disk.left_backups and disk.uuid != wish.erase:
            others = [device for device, other in self.state.disks.items() if other.uuid == wish.erase]
            others += filter(None, [self.reader.elsewhere(wish.erase, wish.device)])
            if others:
                return [f"does not carry {wish.erase}, which is on {others[0]}; compare device and erase"]
            # Copies are the last that goes: on a blank disk a killed run is completed, anything else is another disk.
            if disk.kind != "blank":
                found = "does not exist" if disk.kind == "missing" else f"holds {', '.join(disk.signatures)}"
                return [
                    f"{found}, and the header {wish.erase}, of which {disk.left_backups[0]} is a copy, was not erased; "
                    "compare device and erase; when that disk is gone for good, delete the copies by hand"
                ]
        return []

    def _mapper_refusals(self) -> list[str]:
        wish, disk, mappers = self.wish, self.disk, self.state.mappers
        if wish.state == "opened" and disk.mapper and disk.mapper != wish.name:
            return [f"is open as {disk.mapper}; close it first: cryptsetup close {disk.mapper}"]
        if wish.state == "opened" and not disk.mapper and wish.name in mappers:
            return [f"cannot be opened: the name {wish.name} belongs to the LUKS device {mappers[wish.name]}"]
        if wish.state in ("closed", "absent") and disk.mapper and disk.mapper_users:
            return [f"cannot be closed: {disk.mapper} is in use by {', '.join(disk.mapper_users)}"]
        return []

    # Steps

    def _format(self) -> None:
        if self.disk.kind in ("foreign", "luks1"):
            held, size = ", ".join(self.disk.signatures), self.disk.size / 2**30
            sentence = f"wipe {held} from {self.wish.device} ({size:.1f} GiB)"
            self._add(sentence, self.changer.wipe, self.wish, self.state.servers, self.disk.signatures)
        if self.disk.kind in FRESH:
            what, expected = ("unfinished", (LUKS,)) if self.disk.kind == "unfinished" else ("blank", ())
            sentence = f"format {self.wish.device} ({self.disk.size / 2**30:.1f} GiB, {what}) as LUKS2"
            self._add(sentence, self.changer.format, self.wish, self.state.servers, expected)
            sector_size = self.wish.format.get("sector-size", 0)
            self.disk = Disk("luks2", self.disk.size, keyslots=(0,), key_slots=(0,), sector_size=sector_size)

    def _backup(self, before: int) -> None:
        changes = len(self.plan.steps) > before
        sentence = f"back up the LUKS header of {self.wish.device} to {self.reader.backup_dir}"
        if self.was.kind == "luks2" and not self.was.saved and changes:
            # A header that is about to be changed, and that nobody has kept so far.
            step = Step(f"{sentence} before it is changed", partial(self.changer.save, self.wish))
            self.plan.steps.insert(before, step)
        if not self.disk.saved or changes:
            self.plan.steps[before:before] = self._put_aside()
            self._add(sentence, self.changer.save, self.wish)
            path = str(self.reader.backup(self.wish.name, self.disk.uuid)) if self.disk.uuid else ""
            self.disk = replace(self.disk, saved=True, backup=path, sha256="")
            self._prune()

    def _prune(self) -> None:
        """Remove copies that were kept aside for long, but for those whose keyslots are still missed."""
        missed = {rival.aside for rival in self.disk.missed}
        gone = [path for path in self.disk.stale if path not in missed]
        for path in gone:
            self._add(f"remove {path}, kept aside for {ASIDE_SECONDS // 86400} days", self.changer.forget, path)
        rivals = tuple(rival for rival in self.disk.rivals if rival.aside not in gone)
        self.disk = replace(self.disk, stale=tuple(missed.intersection(self.disk.stale)), rivals=rivals)

    def _put_aside(self) -> list[Step]:
        """Return the steps that keep what a backup of this header would replace; they come before it."""
        steps = []
        for rival in self.disk.rivals:
            if rival.newer and (rival.path != rival.aside or not self.was.saved):
                # Once more when a run was killed before its own backup: the warning went with it.
                self._tell_older(rival)
            if rival.path == rival.aside or (self.wish.remove_passphrase and rival.lost and not rival.newer):
                continue
            # Which of two volume keys is that of the data, no header tells.
            lost = f"has keyslot {_listed(rival.lost)}, lost since on"
            other = "has another volume key than" if rival.other_key else lost
            why = f"{'is newer than the header of' if rival.newer else other} {self.wish.device}"
            step = partial(self.changer.put_aside, rival)
            steps.append(Step(f"keep {rival.path}, which {why}, as {rival.aside}", step))
        left = (replace(rival, path=rival.aside) for rival in self.disk.rivals)
        self.disk = replace(self.disk, rivals=tuple(left))
        return steps

    def _tell_older(self, rival: Rival) -> None:
        self._warn(
            "carries an older header than this node has kept: keys that were removed since open it again, and those "
            "that were added do not. With the disk closed, cryptsetup luksHeaderRestore "
            f"--header-backup-file {rival.aside} {self.wish.device} brings the newer one back",
            " ",
        )

    def _tell_lost(self) -> None:
        """Warn of a passphrase that opens nothing any more, as far as that is known without trying it in each run."""
        wish, disk = self.wish, self.disk
        if disk.kind != "luks2" or wish.remove_passphrase:
            return
        for rival in disk.missed:
            self._warn(
                f"has lost keyslot {_listed(rival.lost)}, which {rival.aside} has, and no given key opens it. With the "
                f"disk closed, cryptsetup luksHeaderRestore --header-backup-file {rival.aside} {wish.device} brings "
                f"back that header as it was; or its binding lets another passphrase in: {LOST}. Delete the file when "
                "nobody misses its key",
                " ",
            )
        if wish.key and not disk.other_slots and not disk.missed and not wish.recovery:
            self._warn(
                f"has no keyslot but those of its bindings: the {wish.key.name} opens nothing, and with the keys of "
                f"the servers its data would be lost. A binding lets another passphrase in: {LOST}",
                " ",
            )

    def _mend(self) -> None:
        if self.disk.torn:
            device = self.wish.device
            self._warn(f"carries a header {TORN}", " ")
            self._add(f"mend one copy of the header of {device} by the other", self.changer.mend, device)
            self.disk = replace(self.disk, torn=False, saved=False)

    def _remove_leftover(self) -> None:
        slot = self.disk.leftover
        if slot is not None:
            sentence = f"remove keyslot {slot} of {self.wish.device}, the rest of a bind that was killed"
            self._add(sentence, self.changer.remove_leftover, self.wish, slot)
            left = tuple(other for other in self.disk.keyslots if other != slot)
            self.disk = replace(self.disk, keyslots=left, leftover=None)

    def _bindings(self) -> None:
        device = self.wish.device
        if self.wish.policy is None:
            self._remove_orphans()
            return
        keeper, reason = self._keeper(self.wish.policy)
        # Before clevis adds a token: it takes the number of one without a keyslot.
        self._remove_orphans(binds=keeper is None)
        keeper = keeper or self._bind(self.wish.policy, reason)
        if keeper is None:
            return
        others = tuple(binding for binding in self.disk.live if binding is not keeper)
        gone = tuple(binding for binding in others if self._superseded(binding, self.wish.policy))
        stay = tuple(binding for binding in others if binding not in gone)
        if not keeper.first and not keeper.foreign and not stay:
            self._add(f"let {device} try keyslot {keeper.keyslot} first", self.changer.prefer, device, keeper.keyslot)
        for binding in gone:
            self._add(self._removal(binding), self.changer.remove_binding, device, binding, keeper)
        left = (replace(keeper, first=keeper.first or not stay), *stay)
        self.disk = replace(self.disk, keyslots=self._without(gone, keeper), bindings=left)

    def _superseded(self, binding: Binding, policy: Policy) -> bool:
        """Tell whether a binding may go in favour of the one that stays, which must be proven to unlock before."""
        servers = self.state.servers
        if not self.binder.silent(policy, servers):
            return True
        if not self.binder.opens(policy, servers):
            return False
        # The server that is silent may be the one whose key tells two bindings of one policy apart.
        same = self.binder.agree(binding.policy, self.binder.canonical(policy))
        return not same or bool(self._reason(binding, policy))

    def _without(self, removed: tuple[Binding, ...], keeper: Optional[Binding] = None) -> tuple[int, ...]:
        """Return the keyslots that are left when bindings were removed, and one was added."""
        gone = {binding.keyslot for binding in removed if not binding.foreign and not binding.shared}
        new = {keeper.keyslot} if keeper and keeper.keyslot is not None else set()
        return tuple(sorted((set(self.disk.keyslots) - gone) | new))

    def _unbind(self) -> None:
        device = self.wish.device
        self._recovery()
        live = self.disk.live
        if live and not self.disk.key_slots and not self.disk.recovery_slots:
            self._refuse(
                "keeps its binding: no given key opens it, and nothing else would; give the passphrase, keyfile or "
                "recovery_key that does"
            )
            return
        for binding in live:
            self._add(self._removal(binding), self.changer.unbind, device, binding)
        self._remove_orphans()
        self.disk = replace(self.disk, keyslots=self._without(live), bindings=())

    def _absent(self) -> None:
        wish, disk = self.wish, self.disk
        self._mapper()
        if wish.erase and disk.uuid == wish.erase and disk.kind in ("luks2", "unfinished", "damaged"):
            others = f", and wipe {', '.join(disk.beside)}" if disk.beside else ""
            header = f"the LUKS2 header {disk.uuid} of {wish.device}"
            sentence = f"erase all keyslots and {header}{others}; its data is lost"
            self._add(sentence, self.changer.erase, wish, disk.signatures)
            self.disk = Disk("blank", disk.size)
        if self.disk.kind == "blank":
            for path in disk.left_backups:
                self._add(f"remove {path}, the backup of an erased header", self.changer.forget, path)
            self.disk = replace(self.disk, left_backups=())

    def _remove_orphans(self, binds: bool = False) -> None:
        gone = self.disk.orphans
        for binding in gone:
            sentence = f"remove orphan clevis token {binding.token} of {self.wish.device}"
            if binds:
                self._add(sentence, self.changer.remove_orphan, self.wish, binding.token, self.state.servers)
            else:
                self._add(sentence, self.changer.remove_token, self.wish.device, binding.token)
        left = set(self.disk.tokens) - {binding.token for binding in gone}
        self.disk = replace(self.disk, tokens=tuple(sorted(left)), bindings=self.disk.live)

    def _removal(self, binding: Binding) -> str:
        if binding.foreign or binding.shared:
            held = "a key that it does not yield now" if binding.foreign else "the key of another token"
            return f"remove clevis token {binding.token} of {self.wish.device}; keyslot {binding.keyslot} holds {held}"
        policy = self.binder.sentence(binding.policy)
        return f"remove the binding of {self.wish.device} to {policy} from keyslot {binding.keyslot}"

    def _keeper(self, policy: Policy) -> tuple[Optional[Binding], str]:
        """Return the binding that may stay, or why there is none."""
        live, servers = self.disk.own, self.state.servers
        wanted = self.binder.canonical(policy)
        same = [binding for binding in live if self.binder.agree(binding.policy, wanted)]
        missing = self.binder.missing(policy, servers)
        reasons = [self._reason(binding, policy) for binding in same]
        keeper = next((binding for binding, reason in zip(same, reasons, strict=True) if not reason), None)
        working = [binding for binding in same if binding.keyslot not in self._replaceable()]
        held = missing or self.disk.doubt
        anew = not same or (keeper is None and (self.wish.rotation == "rebind" or not working) and not held)
        if self.disk.doubt:
            self._warn(f"was not unlocked by its binding, and a new one would not either: {self.disk.doubt}", " ")
        if self.disk.dead and self._free_slot() is None:
            self._warn(f"is not unlocked by its binding any more, and gets no other one: {NO_SLOT}", " ")
        self._tell_silent(policy, anew, bool(missing))
        if keeper is not None:
            return keeper, ""
        if not same:
            old = "; ".join(self.binder.sentence(binding.policy) for binding in live)
            return None, f"instead of {old}" if old else ""
        if anew:
            return None, f"because {reasons[0]}"
        if self.wish.rotation == "report" or held:
            self._warn(f"was not bound again although {reasons[0]}", " ")
        return (working or same)[0], ""

    def _reason(self, binding: Binding, policy: Policy) -> str:
        """Return why a binding with the right policy may not stay."""
        outdated = self.binder.outdated(_plain(binding), policy, self.state.servers)
        return outdated or ("its binding unlocks it no more" if binding.keyslot in self._replaceable() else "")

    def _replaceable(self) -> tuple[int, ...]:
        """Return the bindings that unlock nothing, as far as there is a keyslot for another one."""
        return self.disk.dead if self._free_slot() is not None else ()

    def _tell_silent(self, policy: Policy, anew: bool, missing: bool) -> None:
        silent = self.binder.silent(policy, self.state.servers)
        if not silent:
            return
        several = len(self.disk.live) > 1
        rest = "each binding that may be needed stays" if several else "the present binding stays as it is"
        if anew:
            rest = "it cannot be bound before they do" if missing else "it is bound to what they advertised once"
        self._warn(f"no answer from {', '.join(silent)}; {rest}")

    def _bind(self, policy: Policy, reason: str) -> Optional[Binding]:
        device, slot = self.wish.device, self._free_slot()
        obstacles = self.binder.obstacles(policy, self.state.servers)
        if slot is None:
            obstacles.append(NO_SLOT)
        if slot is None or obstacles:
            self._refuse(*(f"cannot be bound: {obstacle}" for obstacle in obstacles))
            return None
        canonical = self.binder.canonical(policy)
        words = [f"bind {device} to {self.binder.sentence(canonical)} in keyslot {slot}", reason]
        sentence = " ".join(filter(None, words)) + ", and prove that it unlocks"
        self._add(sentence, self.changer.bind, self.wish, policy, slot, self.state.servers)
        token = next(number for number in range(KEYSLOTS + 1) if number not in self.disk.tokens)
        return Binding(token, slot, canonical)

    def _recovery(self) -> None:
        if not self.wish.recovery or self.disk.recovery_slots:
            return
        slot = self._free_slot()
        if slot is None:
            self._refuse(f"gets no recovery key: {NO_SLOT}")
            return
        sentence = f"add the recovery key of {self.wish.device} in keyslot {slot}, and prove that it opens"
        self._add(sentence, self.changer.add_recovery, self.wish, slot, self.disk)
        self.disk = replace(self.disk, keyslots=tuple(sorted((*self.disk.keyslots, slot))), recovery_slots=(slot,))

    def _remove_passphrase(self) -> None:
        wish, disk = self.wish, self.disk
        if not wish.remove_passphrase or not disk.key_slots:
            return
        if all(binding.foreign for binding in disk.live):
            self._refuse(f"keeps its {wish.key.name}: no binding would unlock it; declare a policy")
        elif disk.doubt:
            self._refuse(f"keeps its {wish.key.name}: its binding does not unlock it now: {disk.doubt}")
        elif not disk.recovery_slots and not wish.allow_no_recovery:
            self._refuse(
                f"keeps its {wish.key.name}: refusing to remove the last non-clevis keyslot that is known to open; "
                "set recovery_key or allow_no_recovery"
            )
        else:
            for slot in disk.key_slots:
                sentence = f"remove the {wish.key.name} of {wish.device} from keyslot {slot}"
                self._add(sentence, self.changer.remove_key, wish, slot, disk.live[0])
            left = tuple(slot for slot in disk.keyslots if slot not in disk.key_slots)
            self.disk = replace(disk, keyslots=left, key_slots=())

    def _free_slot(self) -> Optional[int]:
        return next((slot for slot in range(KEYSLOTS) if slot not in self.disk.keyslots), None)

    def _mapper(self) -> None:
        wish, disk = self.wish, self.disk
        if wish.state == "opened" and not disk.mapper:
            self._add(f"open {wish.device} as {wish.name}", self.changer.open, wish)
            self.disk = replace(disk, mapper=wish.name)
        if wish.state in ("closed", "absent") and disk.mapper:
            argv = ["cryptsetup", "close", disk.mapper]
            self._add(f"close {disk.mapper} on {wish.device}", self.changer.tool, argv)
            self.disk = replace(disk, mapper="")


def _listed(slots: tuple[int, ...]) -> str:
    return ", ".join(map(str, slots))


def _plain(binding: Binding) -> Json:
    return {"policy": binding.policy, "tang_keys": list(binding.tang_keys)}
