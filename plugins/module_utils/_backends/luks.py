# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS2 devices: format blank ones, keep one proven binding, the header's backup, and the mapper as declared.

Holders, mounts and mappers are read from the kernel's own files, headers by one `cryptsetup luksDump`
per LUKS device, everything else by one `wipefs` for all devices.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Optional, Protocol, TypeVar

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

Json = dict[str, Any]
Servers = Mapping[str, Optional[frozenset[str]]]
Policy = TypeVar("Policy")
PolicyIn = TypeVar("PolicyIn", contravariant=True)

MAGIC = b"LUKS\xba\xbe"
VERSION_AT = slice(6, 8)
LABEL_AT = slice(24, 72)
UUID_AT = slice(168, 208)
# The binary header with sequence number and checksum: two headers with equal ones are equal as a whole.
BINARY_HEADER = 4096
LABEL_LENGTH = 47
# Every label that the role encryption gives begins with it.
OWN_LABEL = "luks-"
KEYSLOTS = 32
KEY_SECONDS = 600.0
NO_KEY = 2
PREFERRED = 2


class Binder(Protocol[PolicyIn]):
    """What binds a LUKS device to servers; see the module clevis for the one that does."""

    def parse(self, token: Json) -> Json:
        """Return ``policy`` and ``tang_keys`` of a token."""
        ...

    def look(self, policies: Collection[PolicyIn]) -> Servers:
        """Ask all servers for what they advertise."""
        ...

    def canonical(self, policy: PolicyIn) -> Json:
        """Return a policy in comparable form."""
        ...

    def sentence(self, canonical: Json) -> str:
        """Return a comparable policy in words."""
        ...

    def faults(self, policy: PolicyIn) -> list[str]:
        """Return what is wrong with a policy by itself."""
        ...

    def obstacles(self, policy: PolicyIn, servers: Servers) -> list[str]:
        """Return what forbids a new binding."""
        ...

    def silent(self, policy: PolicyIn, servers: Servers) -> list[str]:
        """Return the servers that do not answer."""
        ...

    def outdated(self, binding: Json, policy: PolicyIn, servers: Servers) -> str:
        """Return why a binding needs new keys."""
        ...

    def rebinds(self) -> bool:
        """Tell whether outdated bindings are replaced."""
        ...

    def reports(self) -> bool:
        """Tell whether outdated bindings are reported."""
        ...

    def bind(self, device: str, slot: int, policy: PolicyIn, passphrase: Optional[str]) -> None:
        """Add a binding."""
        ...

    def proves(self, device: str, slot: int) -> bool:
        """Tell whether a binding unlocks the device."""
        ...

    def unlock(self, device: str, name: str) -> bool:
        """Open the device through its bindings."""
        ...


@dataclass(frozen=True)
class Wish(Generic[Policy]):
    """One declared device; ``state`` is present, opened or closed."""

    device: str
    name: str
    state: str
    policy: Optional[Policy] = None
    format: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Binding:
    """One clevis token; without a keyslot that still exists it is an orphan.

    ``first``: the keyslot is tried before the others, so that an unattended unlock does not spend the seconds
    and the memory that the passphrase's keyslots cost.
    """

    token: int
    keyslot: Optional[int]
    policy: Json
    tang_keys: tuple[Json, ...] = ()
    first: bool = False


@dataclass(frozen=True)
class Disk:
    """One device as it is.

    ``kind`` is missing, blank, foreign, luks1, luks2, or unread when cryptsetup is not there yet.
    """

    kind: str
    size: int = 0
    signatures: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    uuid: str = ""
    keyslots: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    bindings: tuple[Binding, ...] = ()
    mapper: str = ""
    mapper_users: tuple[str, ...] = ()
    saved: bool = False
    holds_backups: bool = False
    label: str = ""


@dataclass(frozen=True)
class State:
    """All devices by their declared path, what the servers advertise, and the UUID behind each open mapper."""

    disks: Mapping[str, Disk]
    servers: Servers = field(default_factory=dict)
    mappers: Mapping[str, str] = field(default_factory=dict)


class Kernel:
    """What the kernel's files say about block devices."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def _dir(self, number: str) -> Optional[Path]:
        found = self._root / "sys/dev/block" / number
        return found.resolve() if found.exists() else None

    @staticmethod
    def number(path: str) -> str:
        """Return ``major:minor`` of a block device, an empty text for anything else."""
        found = os.stat(path)
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if stat.S_ISBLK(found.st_mode) else ""

    def users(self, number: str) -> tuple[str, ...]:
        """Return what holds the device ``number``: partitions, holders, mounts, swap."""
        home = self._dir(number)
        if home is None:
            return ()
        parts = [f"partition {entry.parent.name}" for entry in sorted(home.glob("*/partition"))]
        holders = [self._holder(entry) for entry in sorted((home / "holders").glob("*"))]
        return (*parts, *holders, *self._mounts(number), *self._swaps(home.name))

    def _holder(self, entry: Path) -> str:
        name = entry / "dm/name"
        return f"device {name.read_text().strip() if name.exists() else entry.name}"

    def _mounts(self, number: str) -> list[str]:
        table = self._root / "proc/self/mountinfo"
        rows = [line.split() for line in table.read_text().splitlines()] if table.exists() else []
        return [f"mount {row[4]}" for row in rows if row[2] == number]

    def _swaps(self, kname: str) -> list[str]:
        table = self._root / "proc/swaps"
        rows = table.read_text().splitlines()[1:] if table.exists() else []
        return ["swap" for row in rows if os.path.basename(os.path.realpath(row.split()[0])) == kname]

    def size(self, number: str) -> int:
        """Return the device's size in bytes."""
        home = self._dir(number)
        return int((home / "size").read_text()) * 512 if home else 0

    def mappers(self) -> dict[str, tuple[str, str]]:
        """Return name and ``major:minor`` of every open LUKS mapper, by the UUID of its LUKS header."""
        found = {}
        for entry in (self._root / "sys/class/block").glob("dm-*"):
            parts = (entry / "dm/uuid").read_text().strip().split("-", 3)
            if parts[0] == "CRYPT" and parts[1].startswith("LUKS") and len(parts) == 4:
                found[parts[2]] = (parts[3], (entry / "dev").read_text().strip())
        return found

    def below(self, number: str) -> frozenset[str]:
        """Return ``number`` and those of all devices that it stands on."""
        home = self._dir(number)
        if home is None:
            return frozenset({number})
        lower = list((home / "slaves").glob("*")) if (home / "slaves").is_dir() else []
        if (home / "partition").exists():
            lower.append(home.parent)
        return frozenset({number}).union(*(self.below((entry / "dev").read_text().strip()) for entry in lower))


class LuksDevices(Generic[Policy]):
    """All data disks of a node; see the module luks_clevis_bind for the parameters."""

    def __init__(
        self,
        wishes: Sequence[Wish[Policy]],
        binder: Binder[Policy],
        run: Run,
        passphrase: Optional[str],
        backup_dir: str,
        kernel: Optional[Kernel] = None,
    ) -> None:
        self._wishes = wishes
        self._binder = binder
        self._run = run
        self._passphrase = passphrase
        self._backup_dir = Path(backup_dir)
        self._kernel = kernel or Kernel()
        self._proven: set[tuple[str, int]] = set()

    # Looking

    def read(self) -> State:
        """Look at all devices, mappers and servers once.

        :raises NotYet: a device carries LUKS, and cryptsetup is not installed.
        """
        return self._look(dump=True)

    def blank(self) -> State:
        """Return what can be seen without cryptsetup."""
        return self._look(dump=False)

    def _look(self, dump: bool) -> State:
        mappers = self._kernel.mappers()
        heads = {wish.device: _head(wish.device) for wish in self._wishes}
        others = [device for device, head in heads.items() if head is not None and not head.startswith(MAGIC)]
        signatures = self._signatures(others)
        below = self._kernel.below(_filesystem(self._backup_dir))
        disks = {}
        for wish in self._wishes:
            head = heads[wish.device]
            if head is None:
                disks[wish.device] = Disk("missing")
                continue
            disk = self._disk(wish, head, signatures.get(wish.device, ()), dump)
            name, number = mappers.get(disk.uuid.replace("-", ""), ("", ""))
            users = self._kernel.users(number) if name else ()
            beneath = self._kernel.number(wish.device) in below
            disks[wish.device] = replace(disk, mapper=name, mapper_users=users, holds_backups=beneath)
        policies = [wish.policy for wish in self._wishes if wish.policy is not None]
        return State(disks, self._binder.look(policies), {name: uuid for uuid, (name, _) in mappers.items()})

    def _signatures(self, devices: list[str]) -> dict[str, tuple[str, ...]]:
        if not devices:
            return {}
        # wipefs prints the last part of the path alone: only the kernel's own names are distinct there.
        real = {device: os.path.realpath(device) for device in devices}
        text = self._run(["wipefs", "--no-act", "--json", "--", *real.values()]).stdout
        rows = json.loads(text)["signatures"] if text.strip() else []
        return {
            device: tuple(sorted({row["type"] for row in rows if row["device"] == os.path.basename(path)}))
            for device, path in real.items()
        }

    def _disk(self, wish: Wish[Policy], head: bytes, signatures: tuple[str, ...], dump: bool) -> Disk:
        number = self._kernel.number(wish.device)
        size = self._kernel.size(number) if number else os.stat(wish.device).st_size
        if not head.startswith(MAGIC):
            users = self._kernel.users(number) if number else ()
            return Disk("foreign" if signatures else "blank", size, signatures, users)
        if int.from_bytes(head[VERSION_AT], "big") != 2:
            return Disk("luks1", size)
        uuid = head[UUID_AT].split(b"\0", 1)[0].decode()
        label = head[LABEL_AT].split(b"\0", 1)[0].decode(errors="replace")
        if not dump:
            return Disk("unread", size, uuid=uuid, label=label)
        keyslots, tokens, bindings = self._metadata(wish.device)
        saved = _head(str(self._backup(wish, uuid))) == head
        return Disk("luks2", size, (), (), uuid, keyslots, tokens, bindings, saved=saved, label=label)

    def _metadata(self, device: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[Binding, ...]]:
        data = json.loads(self._run(["cryptsetup", "luksDump", "--dump-json-metadata", device]).stdout)
        keyslots = tuple(sorted(int(slot) for slot in data["keyslots"]))
        tokens = tuple(sorted(int(token) for token in data["tokens"]))
        try:
            bindings = tuple(self._binding(token, data["tokens"][str(token)], data["keyslots"]) for token in tokens)
        except ClusterError as error:
            raise ClusterError(f"{device}: {error}") from error
        return keyslots, tokens, tuple(binding for binding in bindings if binding)

    def _binding(self, number: int, token: Json, keyslots: Json) -> Optional[Binding]:
        if token["type"] != "clevis":
            return None
        found = self._binder.parse(token)
        policy, keys = found["policy"], tuple(found["tang_keys"])
        live = [slot for slot in token["keyslots"] if slot in keyslots]
        if not live:
            return Binding(number, None, policy, keys)
        return Binding(number, int(live[0]), policy, keys, keyslots[live[0]].get("priority") == PREFERRED)

    def _backup(self, wish: Wish[Policy], uuid: str) -> Path:
        return self._backup_dir / f"{wish.name}-{uuid}.img"

    # Planning

    def plan(self, state: State) -> Plan[State]:
        """Format, bind, clean up, back up, open or close each device in turn."""
        disks = dict(state.disks)
        plan: Plan[State] = Plan(state)
        plan.refusals += self._faults()
        for wish in self._wishes:
            refusals = self._refusals(wish, disks[wish.device], state)
            plan.refusals += [f"{wish.device} {refusal}" for refusal in refusals]
            if disks[wish.device].kind == "unread":
                plan.warnings.append(
                    f"{wish.device} carries LUKS2; what it needs is known once cryptsetup is installed"
                )
            elif not refusals:
                disks[wish.device] = self._plan_disk(plan, wish, disks[wish.device], state.servers)
        plan.predicted = replace(state, disks=disks)
        return plan

    def _faults(self) -> list[str]:
        found = []
        if "\n" in (self._passphrase or ""):
            found.append("the passphrase is not one line, and clevis reads no further; remove the line break")
        for what, values in (
            ("device", [os.path.realpath(wish.device) for wish in self._wishes]),
            ("name", [wish.name for wish in self._wishes]),
        ):
            found += [f"{what} {value} is declared twice" for value in sorted(set(values)) if values.count(value) > 1]
        return found

    def _refusals(self, wish: Wish[Policy], disk: Disk, state: State) -> list[str]:
        if disk.kind == "missing":
            return ["does not exist; check the path and the cable"]
        if disk.kind == "luks1":
            return ["is LUKS1; convert it with cryptsetup convert --type luks2, or wipe it by hand if it may be lost"]
        if disk.kind == "foreign":
            held = ", ".join(disk.signatures)
            return [f"holds data ({held}); if it may be lost, wipe it by hand: wipefs --all {wish.device}"]
        if disk.kind == "blank" and disk.users:
            return [f"is in use by {', '.join(disk.users)}"]
        if disk.label.startswith(OWN_LABEL) and disk.label != wish.name[:LABEL_LENGTH]:
            return [f"is labelled {disk.label}, and {wish.name} is declared; let device and name mean the same disk"]
        found = []
        if disk.kind == "blank" and not self._passphrase:
            found.append("is blank, and no passphrase was given to format it with")
        if disk.holds_backups:
            found.append(f"carries {self._backup_dir} itself; keep header backups on another disk")
        if wish.policy is not None:
            found += [f"cannot be bound: {fault}" for fault in self._binder.faults(wish.policy)]
        return found + self._mapper_refusals(wish, disk, state)

    def _mapper_refusals(self, wish: Wish[Policy], disk: Disk, state: State) -> list[str]:
        if wish.state == "opened" and disk.mapper and disk.mapper != wish.name:
            return [f"is open as {disk.mapper}; close it first: cryptsetup close {disk.mapper}"]
        if wish.state == "opened" and not disk.mapper and wish.name in state.mappers:
            return [f"cannot be opened: the name {wish.name} belongs to the LUKS device {state.mappers[wish.name]}"]
        if wish.state == "closed" and disk.mapper and disk.mapper_users:
            return [f"cannot be closed: {disk.mapper} is in use by {', '.join(disk.mapper_users)}"]
        return []

    def _plan_disk(self, plan: Plan[State], wish: Wish[Policy], disk: Disk, servers: Servers) -> Disk:
        before = len(plan.steps)
        was = disk
        if disk.kind == "blank":
            sentence = f"format {wish.device} ({disk.size / 2**30:.1f} GiB, blank) as LUKS2"
            plan.steps.append(Step(sentence, partial(self._format, wish, servers)))
            disk = replace(disk, kind="luks2", keyslots=(0,))
        disk = self._plan_binding(plan, wish, disk, servers)
        if was.kind == "luks2" and not was.saved and len(plan.steps) > before:
            # A header that is about to be changed, and that nobody has kept so far.
            plan.steps.insert(before, self._backup_step(wish, "before it is changed"))
        if not disk.saved or len(plan.steps) > before:
            plan.steps.append(self._backup_step(wish, ""))
            disk = replace(disk, saved=True)
        return self._plan_mapper(plan, wish, disk)

    def _backup_step(self, wish: Wish[Policy], when: str) -> Step:
        sentence = " ".join(filter(None, [f"back up the LUKS header of {wish.device} to {self._backup_dir}", when]))
        return Step(sentence, partial(self._save, wish))

    def _plan_binding(self, plan: Plan[State], wish: Wish[Policy], disk: Disk, servers: Servers) -> Disk:
        live = [binding for binding in disk.bindings if binding.keyslot is not None]
        orphans = [binding for binding in disk.bindings if binding.keyslot is None]
        if wish.policy is not None:
            keeper, reason = self._keeper(plan, wish, wish.policy, live, servers)
            if keeper is None:
                keeper = self._plan_bind(plan, wish, wish.policy, disk, servers, reason)
                if keeper is None:
                    return disk
            if not keeper.first:
                argv = ["cryptsetup", "config", "--priority", "prefer", "--key-slot", str(keeper.keyslot), wish.device]
                sentence = f"let {wish.device} try keyslot {keeper.keyslot} first"
                plan.steps.append(Step(sentence, partial(self._tool, argv)))
            for binding in live:
                if binding is not keeper:
                    plan.steps.append(self._remove_step(wish, binding, keeper))
            live = [replace(keeper, first=True)]
        for binding in orphans:
            sentence = f"remove orphan clevis token {binding.token} of {wish.device}"
            plan.steps.append(Step(sentence, partial(self._remove_token, wish.device, binding.token)))
        gone = {binding.keyslot for binding in disk.bindings} - {binding.keyslot for binding in live}
        slots = sorted({*disk.keyslots, *(slot.keyslot for slot in live if slot.keyslot is not None)} - gone)
        return replace(disk, keyslots=tuple(slots), bindings=tuple(live))

    def _keeper(
        self, plan: Plan[State], wish: Wish[Policy], policy: Policy, live: list[Binding], servers: Servers
    ) -> tuple[Optional[Binding], str]:
        """Return the binding that may stay, or why there is none."""
        wanted = self._binder.canonical(policy)
        same = [binding for binding in live if binding.policy == wanted]
        silent = self._binder.silent(policy, servers)
        if silent:
            rest = "; the present binding stays as it is" if same else "; it cannot be bound before they do"
            plan.warnings.append(f"{wish.device}: no answer from {', '.join(silent)}{rest}")
        reasons = [self._binder.outdated(_plain(binding), policy, servers) for binding in same]
        for binding, reason in zip(same, reasons, strict=True):
            if not reason:
                return binding, ""
        if not same:
            old = "; ".join(self._binder.sentence(binding.policy) for binding in live)
            return None, f"instead of {old}" if old else ""
        if self._binder.rebinds() and not silent:
            return None, f"because {reasons[0]}"
        if self._binder.reports() or silent:
            plan.warnings.append(f"{wish.device} was not bound again although {reasons[0]}")
        return same[0], ""

    def _plan_bind(
        self, plan: Plan[State], wish: Wish[Policy], policy: Policy, disk: Disk, servers: Servers, reason: str
    ) -> Optional[Binding]:
        free = [slot for slot in range(KEYSLOTS) if slot not in disk.keyslots]
        obstacles = self._binder.obstacles(policy, servers)
        if not free:
            obstacles.append(f"all {KEYSLOTS} keyslots are in use; free one: cryptsetup luksKillSlot")
        if obstacles:
            plan.refusals += [f"{wish.device} cannot be bound: {obstacle}" for obstacle in obstacles]
            return None
        canonical = self._binder.canonical(policy)
        words = [f"bind {wish.device} to {self._binder.sentence(canonical)} in keyslot {free[0]}", reason]
        sentence = " ".join(filter(None, words)) + ", and prove that it unlocks"
        plan.steps.append(Step(sentence, partial(self._bind, wish, policy, free[0], servers)))
        token = next(number for number in range(KEYSLOTS + 1) if number not in disk.tokens)
        return Binding(token, free[0], canonical)

    def _remove_step(self, wish: Wish[Policy], binding: Binding, keeper: Binding) -> Step:
        policy = self._binder.sentence(binding.policy)
        sentence = f"remove the binding of {wish.device} to {policy} from keyslot {binding.keyslot}"
        return Step(sentence, partial(self._remove_binding, wish.device, binding, keeper))

    def _plan_mapper(self, plan: Plan[State], wish: Wish[Policy], disk: Disk) -> Disk:
        if wish.state == "opened" and not disk.mapper:
            plan.steps.append(Step(f"open {wish.device} as {wish.name}", partial(self._open, wish)))
            return replace(disk, mapper=wish.name)
        if wish.state == "closed" and disk.mapper:
            argv = ["cryptsetup", "close", disk.mapper]
            plan.steps.append(Step(f"close {disk.mapper} on {wish.device}", partial(self._tool, argv)))
            return replace(disk, mapper="")
        return disk

    # Changing

    def _tool(self, argv: list[str], stdin: Optional[str] = None) -> None:
        self._run(argv, stdin=stdin, timeout=KEY_SECONDS)

    def _need_servers(self, wish: Wish[Policy], servers: Servers) -> None:
        silent = self._binder.silent(wish.policy, servers) if wish.policy is not None else []
        if silent:
            raise ClusterError(
                f"{wish.device} was left as it is, it could not be bound: no answer from {', '.join(silent)}; "
                "start tang there, or check the network between"
            )

    def _format(self, wish: Wish[Policy], servers: Servers) -> None:
        self._need_servers(wish, servers)
        # Between planning and now somebody else may have taken the disk.
        taken = self._signatures([wish.device])[wish.device] + self._kernel.users(self._kernel.number(wish.device))
        if taken:
            raise ClusterError(f"{wish.device} is no longer blank: {', '.join(taken)}; nothing was written to it")
        argv = ["cryptsetup", "luksFormat", "--batch-mode", "--type", "luks2", "--label", wish.name[:LABEL_LENGTH]]
        argv += [f"--{option}={value}" for option, value in wish.format.items() if value is not None]
        self._tool([*argv, "--key-file", "-", wish.device], self._passphrase)

    def _bind(self, wish: Wish[Policy], policy: Policy, slot: int, servers: Servers) -> None:
        self._need_servers(wish, servers)
        self._binder.bind(wish.device, slot, policy, self._passphrase)
        if not self._binder.proves(wish.device, slot):
            bindings = self._metadata(wish.device)[2]
            for binding in bindings:
                if binding.keyslot == slot:
                    self._drop(wish.device, binding)
            raise ClusterError(
                f"{wish.device}: the new binding failed its test and was removed; what was there before was kept"
            )
        self._proven.add((wish.device, slot))

    def _remove_binding(self, device: str, binding: Binding, keeper: Binding) -> None:
        slot = keeper.keyslot
        if slot is None or ((device, slot) not in self._proven and not self._binder.proves(device, slot)):
            raise ClusterError(
                f"{device}: the binding in keyslot {slot} does not unlock it, so no other one was removed"
            )
        self._drop(device, binding)

    def _drop(self, device: str, binding: Binding) -> None:
        # The keyslot first: a token without a keyslot is seen as an orphan by the next run, the reverse is not.
        self._tool(["cryptsetup", "luksKillSlot", "--batch-mode", device, str(binding.keyslot)])
        self._remove_token(device, binding.token)

    def _remove_token(self, device: str, token: int) -> None:
        self._tool(["cryptsetup", "token", "remove", "--token-id", str(token), device])

    def _save(self, wish: Wish[Policy]) -> None:
        """Replace the device's backup: an older one would bring removed keys back to life."""
        self._backup_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        uuid = (_head(wish.device) or b"")[UUID_AT].split(b"\0", 1)[0].decode()
        target = self._backup(wish, uuid)
        new = target.with_suffix(".new")
        new.unlink(missing_ok=True)
        self._tool(["cryptsetup", "luksHeaderBackup", "--header-backup-file", str(new), wish.device])
        new.chmod(0o400)
        for path in (new, self._backup_dir):
            _sync(path)
        new.replace(target)
        for older in self._backup_dir.glob(f"*-{uuid}.img"):
            if older != target:
                older.unlink()
        _sync(self._backup_dir)

    def _open(self, wish: Wish[Policy]) -> None:
        argv = ["cryptsetup", "open", "--type", "luks2", "--key-file", "-", wish.device, wish.name]
        if self._passphrase:
            done = self._run(argv, stdin=self._passphrase, ok=(0, NO_KEY), timeout=KEY_SECONDS)
            if done.rc == 0:
                return
        if not self._binder.unlock(wish.device, wish.name):
            raise ClusterError(f"{wish.device} was not opened: no valid passphrase and no binding decrypts")

    # Showing

    def view(self, state: State) -> dict[str, Any]:
        """Return the devices as plain data."""
        shown = {wish.device: self._shown(wish, state.disks[wish.device], state.servers) for wish in self._wishes}
        return {
            "devices": shown,
            "silent_servers": sorted(url for url, known in state.servers.items() if known is None),
        }

    def _shown(self, wish: Wish[Policy], disk: Disk, servers: Servers) -> Json:
        live = [binding for binding in disk.bindings if binding.keyslot is not None]
        first = live[0] if live else None
        keys = [
            {"url": key["url"], "kid": key["kid"], "advertised": _advertises(servers, key)}
            for binding in live
            for key in binding.tang_keys
        ]
        return {
            "kind": disk.kind,
            "uuid": disk.uuid or None,
            "mapper": disk.mapper or None,
            "keyslots": list(disk.keyslots),
            "keyslot": first.keyslot if first else None,
            "token_id": first.token if first else None,
            "policy": first.policy if first else None,
            "tang_keys": keys,
            "rotated_keys": sorted(key["kid"] for key in keys if key["advertised"] is False),
            "orphan_tokens": [binding.token for binding in disk.bindings if binding.keyslot is None],
            "header_backup": str(self._backup(wish, disk.uuid)) if disk.saved and disk.uuid else None,
        }


def _advertises(servers: Servers, key: Json) -> Optional[bool]:
    known = servers.get(key["url"])
    return None if known is None else key["kid"] in known


def _plain(binding: Binding) -> Json:
    return {"policy": binding.policy, "tang_keys": list(binding.tang_keys)}


def _head(path: str) -> Optional[bytes]:
    """Return the first bytes of a device or a backup; None when it is not there."""
    try:
        with open(path, "rb") as stream:
            return stream.read(BINARY_HEADER)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ClusterError(
            f"{path} cannot be read: {error.strerror}; check the path, the disk and its cable"
        ) from error


def _filesystem(path: Path) -> str:
    """Return ``major:minor`` of the filesystem on which ``path`` is, or will be."""
    while not path.exists():
        path = path.parent
    number = path.stat().st_dev
    return f"{os.major(number)}:{os.minor(number)}"


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
