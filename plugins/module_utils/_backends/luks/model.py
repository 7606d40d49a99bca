# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS devices as plain data: what is declared, what is there, and what binds a device to servers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Optional, Protocol, TypeVar

Json = dict[str, Any]
Servers = Mapping[str, Optional[frozenset[str]]]
Policy = TypeVar("Policy")
PolicyIn = TypeVar("PolicyIn", contravariant=True)

# What wipefs calls a LUKS header.
LUKS = "crypto_LUKS"
OWN_LABEL = "luks-"
LABEL_LENGTH = 47
# cryptsetup reads no more of a line.
PASSPHRASE_LENGTH = 512
KEYSLOTS = 32
KEY_SECONDS = 600.0
PREFERRED = 2
# How cryptsetup tells of a key that opens nothing, and of a header of which no copy is whole.
NO_KEY = 2
NO_HEADER = "is not a valid LUKS device"
# How it tells of a key that opens a keyslot, and not the disk.
NO_KEYSLOT = "No usable keyslot"


class Binder(Protocol[PolicyIn]):
    """What binds a LUKS device to servers; see the backend clevis for the one that does."""

    def parse(self, token: Json) -> Json:
        """Return ``policy`` and ``tang_keys`` of a token."""
        ...

    def urls(self, policy: PolicyIn) -> Collection[str]:
        """Return all that a policy asks: servers, and the TPM."""
        ...

    def look(self, urls: Collection[str]) -> Servers:
        """Ask servers for what they advertise."""
        ...

    def canonical(self, policy: PolicyIn) -> Json:
        """Return a policy in comparable form."""
        ...

    def agree(self, found: Json, wanted: Json) -> bool:
        """Tell whether a binding's policy is the wanted one."""
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

    def opens(self, policy: PolicyIn, servers: Servers) -> bool:
        """Tell whether the servers that answer are enough to unlock."""
        ...

    def missing(self, policy: PolicyIn, servers: Servers) -> list[str]:
        """Return the servers that must answer before a new binding can be made."""
        ...

    def outdated(self, binding: Json, policy: PolicyIn, servers: Servers) -> str:
        """Return why a binding needs new keys."""
        ...

    def bind(self, device: str, slot: int, policy: PolicyIn, passphrase: str, keyfile: str) -> None:
        """Add a binding, authorised by a passphrase, a file or an existing binding."""
        ...

    def fails(self, policy: PolicyIn) -> str:
        """Return why nothing that is bound to a policy would come back now, trying it without a disk."""
        ...

    def secret(self, device: str, slot: int) -> str:
        """Return what a binding yields, whatever it opens; an empty text when it does not decrypt."""
        ...

    def unlock(self, device: str, name: str) -> bool:
        """Open the device through its bindings."""
        ...


@dataclass(frozen=True)
class Key:
    """What opens a device beside its bindings: a line of text, or a file on the node."""

    text: str = field(default="", repr=False)
    file: str = ""

    def __bool__(self) -> bool:
        return bool(self.text or self.file)

    @property
    def name(self) -> str:
        """The key in words."""
        return f"key of {self.file}" if self.file else "passphrase"

    @property
    def arguments(self) -> list[str]:
        """How cryptsetup is told to take it as it is."""
        return ["--key-file", self.file or "-"]

    @property
    def stdin(self) -> Optional[str]:
        """What goes to standard input."""
        return None if self.file else self.text


@dataclass(frozen=True)
class Wish(Generic[Policy]):
    """One declared device; ``state`` is present, opened, closed, unbound or absent.

    ``header_backup_dir`` is empty for the directory of all devices. ``rotation`` is rebind, report or ignore.
    ``replaced`` says that it is another disk than the one whose header backups carry its name.
    ``erase`` is the UUID of the header that may be destroyed when the device is to be absent.
    """

    device: str
    name: str
    state: str
    policy: Optional[Policy] = None
    format: Mapping[str, Any] = field(default_factory=dict)
    key: Key = field(default_factory=Key)
    recovery: Key = field(default_factory=Key)
    remove_passphrase: bool = False
    allow_no_recovery: bool = False
    header_backup_dir: str = ""
    rotation: str = "rebind"
    force_wipe: bool = False
    replaced: bool = False
    erase: str = ""

    @property
    def keys(self) -> list[Key]:
        """All given keys, the one that is expected to be valid first."""
        keys = [self.recovery, self.key] if self.remove_passphrase else [self.key, self.recovery]
        return [key for key in keys if key]


@dataclass(frozen=True)
class Binding:
    """One clevis token; without a keyslot that still exists it is an orphan.

    ``first``: the keyslot is tried before the others, so that an unattended unlock does not spend the seconds
    and the memory that the passphrase's keyslots cost. ``by_clevis``: the keyslot is made as clevis makes them.
    ``foreign``: somebody has put another key there. ``shared``: an earlier token has the same keyslot.
    """

    token: int
    keyslot: Optional[int]
    policy: Json
    tang_keys: tuple[Json, ...] = ()
    first: bool = False
    by_clevis: bool = True
    foreign: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Rival:
    """A backup that must not be lost to the present header of its disk.

    ``aside`` is the name that it gets then, or has already. It is ``newer``, or with ``other_key`` of another volume
    key; or it has keyslots that the disk has ``lost``, those of bindings left aside.
    """

    path: str
    aside: str
    newer: bool = False
    other_key: bool = False
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class Disk:
    """One device as it is.

    ``kind`` is missing, blank, foreign, luks1, luks2, damaged for LUKS2 of whose header one copy or both are not
    whole, unfinished for LUKS2 of ours that has never had a key, or unread when cryptsetup is not there yet.
    ``sha256`` is that of the backup of its header, and known only while the backup is the present header.
    ``key_slots`` and ``recovery_slots`` are those that the declared keys open, as far as that was tried.
    ``left_backups`` are those of the header that is to be erased. ``leftover`` is a keyslot that a killed bind
    left, and nobody has the key of. ``sector_size`` is in bytes. ``outlived`` are, of a disk without a LUKS2 header,
    the backups of headers that had its name, the latest last. ``dead`` are the keyslots of bindings that have the
    declared policy and unlock nothing, although a new one would; ``doubt`` says why a new one would not either.
    ``unassigned`` are the keyslots whose key is not that of the data. ``reencryption`` is what the header demands while
    its data is being reencrypted. ``twin`` is a mapper of its UUID that stands on another disk. ``rivals`` are the
    backups with its UUID, under whatever name, that the backup of its header must not replace, ``missed`` those with
    keyslots that no declared key replaces. ``stale`` are copies of its header that were kept aside for long enough.
    ``torn``: one copy of its header is not whole, or older than the other.
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
    backup: str = ""
    sha256: str = ""
    holds_backups: bool = False
    label: str = ""
    key_slots: tuple[int, ...] = ()
    recovery_slots: tuple[int, ...] = ()
    left_backups: tuple[str, ...] = ()
    leftover: Optional[int] = None
    sector_size: int = 0
    outlived: tuple[str, ...] = ()
    dead: tuple[int, ...] = ()
    doubt: str = ""
    unassigned: tuple[int, ...] = ()
    reencryption: str = ""
    twin: str = ""
    rivals: tuple[Rival, ...] = ()
    missed: tuple[Rival, ...] = ()
    stale: tuple[str, ...] = ()
    torn: bool = False

    @property
    def live(self) -> tuple[Binding, ...]:
        """The bindings whose keyslot exists."""
        return tuple(binding for binding in self.bindings if binding.keyslot is not None)

    @property
    def own(self) -> tuple[Binding, ...]:
        """The bindings that have a keyslot to themselves, what is in it left aside."""
        return tuple(binding for binding in self.live if not binding.shared)

    @property
    def other_slots(self) -> tuple[int, ...]:
        """The keyslots that belong to no binding, and whose key is that of the data."""
        bound = {binding.keyslot for binding in self.bindings if not binding.foreign}
        return tuple(slot for slot in self.keyslots if slot not in bound and slot not in self.unassigned)

    @property
    def keyless(self) -> bool:
        """Whether it is LUKS2 that nothing opens."""
        return self.kind == "luks2" and set(self.keyslots) <= set(self.unassigned)

    @property
    def beside(self) -> tuple[str, ...]:
        """What lies on it beside the remains of its header."""
        return tuple(signature for signature in self.signatures if signature != LUKS)

    @property
    def orphans(self) -> tuple[Binding, ...]:
        """The tokens whose keyslot is gone."""
        return tuple(binding for binding in self.bindings if binding.keyslot is None)


@dataclass(frozen=True)
class State:
    """All devices by their declared path, what the servers advertise, and the UUID behind each open mapper.

    ``exposed`` are copies of headers that others than root may read, or anybody may write.
    """

    disks: Mapping[str, Disk]
    servers: Servers = field(default_factory=dict)
    mappers: Mapping[str, str] = field(default_factory=dict)
    exposed: tuple[str, ...] = ()
