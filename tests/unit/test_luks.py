# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS devices: reading recorded headers and the kernel's files, and the order of what is planned."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks import devices as luks_devices
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks import (
    headers,
    reading,
    restoring,
    showing,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks import model as luks
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.kernel import Kernel, Mapper
from ansible_collections.personal.cluster.plugins.module_utils._errors import (
    ClusterError,
    CommandFailed,
    NotYet,
    Refused,
)
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed
from ansible_collections.personal.cluster.plugins.modules import luks_clevis_bind as module

RECORDED = Path(__file__).parent / "recorded" / "cryptsetup"
RELEASES = ["bookworm", "trixie"]
GIB = 2**30
HEADER_SIZE = 16 * 2**20
WANTED = {"tang": {"url": "http://t1"}}
OTHER = {"tang": {"url": "http://t2"}}
FRESH = luks.Binding(0, 1, WANTED, first=True)
DONE = luks.Disk("luks2", GIB, uuid="u", keyslots=(0, 1), tokens=(0,), bindings=(FRESH,), mapper="luks-a", saved=True)
UP = {"http://t1": frozenset({"k"})}
BIND = "bind /dev/a to http://t1 in keyslot 1, and prove that it unlocks"
FIRST = "let /dev/a try keyslot 1 first"
SAVE = "back up the LUKS header of /dev/a to /backup"
YIELDED = "what the binding yields"
OPEN = "open /dev/a as luks-a"


class Binder:
    """Binds to one server; a policy is its URL."""

    def __init__(
        self,
        *,
        proves: bool = True,
        stale: str = "",
        obstacle: str = "",
        failing: str = "",
    ) -> None:
        self.proved = proves
        self.stale = stale
        self.obstacle = obstacle
        self.failing = failing
        self.authority = ""
        self.calls: list[str] = []

    def parse(self, token: dict[str, Any]) -> dict[str, Any]:
        if "jwe" not in token:
            raise ClusterError("its clevis token cannot be read")
        return {"policy": WANTED, "tang_keys": [{"url": "http://t1", "kid": "k", "known": []}]}

    def urls(self, policy: str) -> Collection[str]:
        return [policy]

    def look(self, urls: Collection[str]) -> luks.Servers:
        return {url: frozenset({"k"}) for url in urls}

    def canonical(self, policy: str) -> dict[str, Any]:
        return {"tang": {"url": policy}}

    def agree(self, found: dict[str, Any], wanted: dict[str, Any]) -> bool:
        return found == wanted

    def sentence(self, canonical: dict[str, Any]) -> str:
        return str(canonical["tang"]["url"])

    def faults(self, policy: str) -> list[str]:
        return []

    def obstacles(self, policy: str, servers: luks.Servers) -> list[str]:
        return [self.obstacle] if self.obstacle else []

    def silent(self, policy: str, servers: luks.Servers) -> list[str]:
        return [policy] if servers.get(policy) is None else []

    def missing(self, policy: str, servers: luks.Servers) -> list[str]:
        return self.silent(policy, servers)

    def opens(self, policy: str, servers: luks.Servers) -> bool:
        return servers.get(policy) is not None

    def outdated(self, binding: dict[str, Any], policy: str, servers: luks.Servers) -> str:
        return self.stale

    def bind(self, device: str, slot: int, policy: str, passphrase: str, keyfile: str) -> None:
        self.calls.append(f"bind {slot}")
        self.authority = passphrase or keyfile or "a binding"

    def fails(self, policy: str) -> str:
        self.calls.append("try the policy")
        return self.failing

    def secret(self, device: str, slot: int) -> str:
        self.calls.append(f"prove {slot}")
        return YIELDED if self.proved else ""

    def unlock(self, device: str, name: str) -> bool:
        self.calls.append(f"unlock {name}")
        return True


class Recording:
    """A runner that answers with what was recorded, and keeps what it was asked."""

    def __init__(self, dump: str = "", wipefs: str = '{"signatures": []}', rc: int = 0) -> None:
        self.dump = dump
        self.wipefs = wipefs
        self.rc = rc
        self.keys: dict[str, str] = {}
        self.stdin: str | None = None
        self.calls: list[list[str]] = []

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        if options.get("stdin") == YIELDED:
            # The proof of a binding, of which the binder keeps that it was asked.
            return Completed(0, "", "")
        self.calls.append(list(argv))
        if argv[0] == "wipefs":
            return Completed(0, self.wipefs, "")
        if argv[1] == "luksDump":
            if not self.dump:
                raise NotYet("cryptsetup is not installed")
            return Completed(0, self.dump, "")
        if "--test-passphrase" in argv:
            slot = argv[argv.index("--key-slot") + 1] if "--key-slot" in argv else ""
            secret = options["stdin"] or argv[argv.index("--key-file") + 1]
            keys = [self.keys.get(slot)] if slot else self.keys.values()
            return Completed(0 if secret in keys else luks.NO_KEY, "", "")
        self.stdin = options.get("stdin")
        if argv[1] == "luksHeaderBackup":
            Path(argv[3]).write_bytes(Path(argv[4]).read_bytes())
        return Completed(self.rc, "", "")


def wish(state: str = "opened", policy: str | None = "http://t1", device: str = "/dev/a") -> luks.Wish[str]:
    return luks.Wish(device, "luks-a", state, policy)


def resource(
    *wishes: luks.Wish[str],
    binder: Binder | None = None,
    run: Recording | None = None,
    passphrase: str | None = "pp",
    backup: str = "/backup",
    root: Path = Path("/nonexistent"),
) -> luks_devices.LuksDevices[str]:
    binder, run = binder or Binder(), run or Recording()
    wishes = tuple(replace(wish, key=wish.key or luks.Key(passphrase or "")) for wish in wishes or (wish(),))
    reader = reading.Reader(run, binder.parse, backup, Kernel(root))
    return luks_devices.LuksDevices(wishes, binder, run, reader)


def sentences(disk: luks.Disk, servers: luks.Servers = UP, **options: Any) -> list[str]:
    devices = resource(**options)
    plan = devices.plan(luks.State({"/dev/a": disk}, servers))
    assert plan.refusals == []
    left = devices.plan(plan.predicted)
    if not options.get("binder") or not options["binder"].stale:
        assert left.steps == [] and left.refusals == [], "the predicted state is not the desired one"
    return [step.sentence for step in plan.steps]


def refusals(disk: luks.Disk, *wishes: luks.Wish[str], mappers: dict[str, str] | None = None, **options: Any) -> str:
    plan = resource(*wishes, **options).plan(luks.State({"/dev/a": disk}, UP, mappers or {}))
    return "; ".join(plan.refusals)


def wrong(*wishes: luks.Wish[str], **options: Any) -> str:
    """Return why the declaration is refused before anything is looked at."""
    run = Recording()
    with pytest.raises(Refused) as caught:
        resource(*wishes, run=run, **options).read()
    assert run.calls == []
    return str(caught.value)


# Planning


def test_converged_disk_needs_nothing() -> None:
    assert sentences(DONE) == []


def test_blank_disk() -> None:
    formats = "format /dev/a (1.0 GiB, blank) as LUKS2"
    assert sentences(luks.Disk("blank", GIB)) == [formats, BIND, FIRST, SAVE, OPEN]


def test_killed_after_each_step_of_the_first_run() -> None:
    formatted = luks.Disk("luks2", GIB, uuid="u", keyslots=(0,))
    assert sentences(formatted) == [f"{SAVE} before it is changed", BIND, FIRST, SAVE, OPEN]
    bound = replace(formatted, keyslots=(0, 1), tokens=(0,), bindings=(replace(FRESH, first=False),))
    assert sentences(bound) == [f"{SAVE} before it is changed", FIRST, SAVE, OPEN]
    assert sentences(replace(DONE, saved=False, mapper="")) == [SAVE, OPEN]
    assert sentences(replace(DONE, mapper="")) == [OPEN]


def test_new_policy_is_proven_before_the_old_binding_goes() -> None:
    old = luks.Binding(0, 1, OTHER, first=True)
    assert sentences(replace(DONE, bindings=(old,))) == [
        "bind /dev/a to http://t1 in keyslot 2 instead of http://t2, and prove that it unlocks",
        "let /dev/a try keyslot 2 first",
        "remove the binding of /dev/a to http://t2 from keyslot 1",
        SAVE,
    ]


def test_doubles_and_orphans_go_and_the_right_binding_stays() -> None:
    double, orphan = luks.Binding(1, 2, WANTED), luks.Binding(2, None, OTHER)
    disk = replace(DONE, keyslots=(0, 1, 2), tokens=(0, 1, 2), bindings=(FRESH, double, orphan))
    assert sentences(disk) == [
        "remove orphan clevis token 2 of /dev/a",
        "remove the binding of /dev/a to http://t1 from keyslot 2",
        SAVE,
    ]


def test_an_orphan_goes_before_clevis_takes_the_number_of_its_token() -> None:
    orphan = luks.Binding(1, None, OTHER)
    disk = replace(DONE, tokens=(0, 1), bindings=(replace(FRESH, policy=OTHER), orphan))
    assert sentences(disk)[:2] == [
        "remove orphan clevis token 1 of /dev/a",
        "bind /dev/a to http://t1 in keyslot 2 instead of http://t2, and prove that it unlocks",
    ]
    devices = resource()
    assert devices.plan(luks.State({"/dev/a": disk}, UP)).predicted.disks["/dev/a"].bindings[0].token == 1


@pytest.mark.parametrize("other", [WANTED, OTHER])
def test_of_two_tokens_on_one_keyslot_the_later_one_goes_alone(other: dict[str, Any]) -> None:
    later = luks.Binding(1, 1, other, shared=True)
    disk = replace(DONE, tokens=(0, 1), bindings=(FRESH, later))
    assert sentences(disk) == ["remove clevis token 1 of /dev/a; keyslot 1 holds the key of another token", SAVE]
    swapped = replace(disk, bindings=(replace(FRESH, policy=OTHER), replace(later, policy=WANTED)))
    assert sentences(swapped)[0].startswith("bind /dev/a to http://t1 in keyslot 2")


def test_rotation() -> None:
    rotated = "the key was rotated"
    steps = sentences(DONE, binder=Binder(stale=rotated))
    assert steps[0].startswith("bind /dev/a to http://t1 in keyslot 2 because the key was rotated")
    ignored = replace(wish(), rotation="ignore")
    reported = replace(wish(device="/dev/b"), name="luks-b", rotation="report")
    both = luks.State({"/dev/a": DONE, "/dev/b": replace(DONE, mapper="luks-b", uuid="other")}, UP)
    plan = resource(ignored, reported, binder=Binder(stale=rotated)).plan(both)
    assert plan.steps == [] and plan.warnings == ["/dev/b was not bound again although the key was rotated"]


@pytest.mark.parametrize("rotation", ["rebind", "report", "ignore"])
def test_a_binding_that_unlocks_no_more_is_made_anew(rotation: str) -> None:
    assert planned(replace(DONE, dead=(1,)), replace(wish(), rotation=rotation)) == [
        "bind /dev/a to http://t1 in keyslot 2 because its binding unlocks it no more, and prove that it unlocks",
        "let /dev/a try keyslot 2 first",
        "remove the binding of /dev/a to http://t1 from keyslot 1",
        SAVE,
    ]


def test_of_two_bindings_the_one_that_unlocks_stays() -> None:
    disk = replace(DONE, keyslots=(0, 1, 2), tokens=(0, 1), bindings=(FRESH, luks.Binding(1, 2, WANTED)), dead=(1,))
    assert sentences(disk) == [
        "let /dev/a try keyslot 2 first",
        "remove the binding of /dev/a to http://t1 from keyslot 1",
        SAVE,
    ]


def test_silent_server_is_a_warning() -> None:
    plan = resource().plan(luks.State({"/dev/a": DONE}, {"http://t1": None}))
    assert plan.steps == [] and plan.refusals == []
    assert plan.warnings == ["/dev/a: no answer from http://t1; the present binding stays as it is"]


@pytest.mark.parametrize("other", [WANTED, OTHER])
def test_while_a_server_is_silent_no_binding_goes_in_favour_of_one_that_was_there(other: dict[str, Any]) -> None:
    second = luks.Binding(1, 2, other)
    disk = replace(DONE, keyslots=(0, 1, 2), tokens=(0, 1), bindings=(FRESH, second))
    plan = resource().plan(luks.State({"/dev/a": disk}, {"http://t1": None}))
    assert plan.steps == [] and plan.predicted.disks["/dev/a"].bindings == disk.bindings
    assert plan.warnings == ["/dev/a: no answer from http://t1; each binding that may be needed stays"]
    # Nor is the other one tried first instead.
    swapped = replace(disk, bindings=(replace(FRESH, first=False), replace(second, first=True)))
    assert sentences(swapped, {"http://t1": None}) == []


def test_while_one_of_several_servers_is_silent_only_a_binding_that_is_known_to_be_worse_goes() -> None:
    class Several(Binder):
        def silent(self, policy: str, servers: luks.Servers) -> list[str]:
            return ["http://t3"]

        def outdated(self, binding: dict[str, Any], policy: str, servers: luks.Servers) -> str:
            return "its key was rotated" if binding["tang_keys"] else ""

    rotated = luks.Binding(3, 4, WANTED, tang_keys=({"url": "http://t1", "kid": "old", "known": []},))
    others = (luks.Binding(1, 2, WANTED), luks.Binding(2, 3, OTHER), rotated)
    disk = replace(DONE, keyslots=(0, 1, 2, 3, 4), tokens=(0, 1, 2, 3), bindings=(FRESH, *others))
    plan = resource(binder=Several()).plan(luks.State({"/dev/a": disk}, UP))
    assert [step.sentence for step in plan.steps] == [
        "remove the binding of /dev/a to http://t2 from keyslot 3",
        "remove the binding of /dev/a to http://t1 from keyslot 4",
        SAVE,
    ]
    assert [binding.keyslot for binding in plan.predicted.disks["/dev/a"].bindings] == [1, 2]


def test_a_silent_server_whose_advertisement_was_kept_keeps_nothing_from_being_bound() -> None:
    class Kept(Binder):
        def missing(self, policy: str, servers: luks.Servers) -> list[str]:
            return []

    away = luks.State({"/dev/a": DONE}, {"http://t1": None})
    for stale, says in (("", "the present binding stays as it is"), ("another", "it is bound to what they advertised")):
        plan = resource(binder=Kept(stale=stale)).plan(away)
        assert bool(plan.steps) == bool(stale) and [says in warning for warning in plan.warnings] == [True]


def test_without_a_policy_bindings_are_left_alone() -> None:
    old = replace(DONE, bindings=(luks.Binding(0, 1, OTHER),))
    plan = resource(wish(policy=None)).plan(luks.State({"/dev/a": old}))
    assert plan.steps == [] and plan.predicted.disks["/dev/a"].bindings == old.bindings


RECOVER = "add the recovery key of /dev/a in keyslot {}, and prove that it opens"
FORGET = "remove the passphrase of /dev/a from keyslot 0"


def keyed(**more: Any) -> luks.Wish[str]:
    return replace(wish(), key=luks.Key("pp"), recovery=luks.Key("rk"), remove_passphrase=True, **more)


def planned(disk: luks.Disk, wanted: luks.Wish[str]) -> list[str]:
    devices = resource(wanted)
    plan = devices.plan(luks.State({"/dev/a": disk}, UP))
    assert plan.refusals == []
    left = devices.plan(plan.predicted)
    assert left.steps == [] and left.refusals == [], "the predicted state is not the desired one"
    return [step.sentence for step in plan.steps]


def test_the_passphrase_goes_after_binding_and_recovery_key() -> None:
    formats = "format /dev/a (1.0 GiB, blank) as LUKS2"
    steps = [formats, BIND, FIRST, RECOVER.format(2), FORGET, SAVE, OPEN]
    assert planned(luks.Disk("blank", GIB), keyed()) == steps
    killed = replace(DONE, keyslots=(0, 1, 2), key_slots=(0,), recovery_slots=(2,))
    assert planned(killed, keyed()) == [FORGET, SAVE]
    assert planned(replace(DONE, key_slots=(0,)), keyed()) == [RECOVER.format(2), FORGET, SAVE]
    assert planned(replace(DONE, keyslots=(1, 2), recovery_slots=(2,)), keyed()) == []
    other = keyed()
    assert planned(replace(DONE, key_slots=(0,)), replace(other, recovery=luks.Key(), allow_no_recovery=True)) == [
        FORGET,
        SAVE,
    ]
    assert planned(DONE, replace(other, remove_passphrase=False)) == [RECOVER.format(2), SAVE]


def test_the_last_passphrase_stays() -> None:
    alone = replace(keyed(), recovery=luks.Key())
    assert "/dev/a keeps its passphrase: refusing to remove the last" in refusals(replace(DONE, key_slots=(0,)), alone)
    # A keyslot that nobody has a key for is no recovery.
    assert "refusing" in refusals(replace(DONE, keyslots=(0, 1, 5), key_slots=(0,)), alone)
    unbound = replace(DONE, bindings=(), tokens=(), keyslots=(0,), key_slots=(0,))
    assert "no binding would unlock it; declare a policy" in refusals(unbound, replace(keyed(), policy=None))
    held = replace(
        DONE, key_slots=(0,), recovery_slots=(5,), keyslots=(0, 1, 5), bindings=(replace(FRESH, foreign=True),)
    )
    assert "no binding would unlock it" in refusals(held, keyed())
    doubtful = replace(DONE, key_slots=(0,), recovery_slots=(5,), keyslots=(0, 1, 5), doubt="the TPM is off")
    assert "keeps its passphrase: its binding does not unlock it now: the TPM is off" in refusals(doubtful, keyed())
    assert "recovery_key is the passphrase itself" in wrong(replace(keyed(), recovery=luks.Key("pp")))
    assert "are both given" in wrong(replace(keyed(), key=luks.Key("pp", "/k")))
    assert "the recovery_key is not one line" in wrong(replace(keyed(), recovery=luks.Key("a\nb")))
    assert "longer than 512 bytes" in wrong(replace(keyed(), recovery=luks.Key("ä" * 300)))
    full = replace(DONE, keyslots=tuple(range(32)))
    assert "gets no recovery key: all 32 keyslots" in refusals(full, keyed())


UNBIND = "remove the binding of /dev/a to http://t1 from keyslot 1"


def test_rest_of_a_killed_bind_goes_first() -> None:
    left = replace(DONE, keyslots=(0, 1), tokens=(), bindings=(), leftover=1)
    rest = "remove keyslot 1 of /dev/a, the rest of a bind that was killed"
    assert sentences(left) == [rest, BIND, FIRST, SAVE]


def test_format_that_was_killed_is_done_again() -> None:
    unfinished = luks.Disk("unfinished", GIB, uuid="u", label="luks-a")
    formats = "format /dev/a (1.0 GiB, unfinished) as LUKS2"
    assert sentences(unfinished) == [formats, BIND, FIRST, SAVE, OPEN]
    assert planned(unfinished, wish("unbound")) == []
    assert "no passphrase was given" in refusals(unfinished, passphrase=None)
    assert "in use by mount /x" in refusals(replace(unfinished, users=("mount /x",)))


def test_unbound() -> None:
    wanted = replace(wish("unbound"), key=luks.Key("pp"))
    orphan = luks.Binding(1, None, OTHER)
    bound = replace(DONE, tokens=(0, 1), bindings=(FRESH, orphan), key_slots=(0,))
    assert planned(bound, wanted) == [UNBIND, "remove orphan clevis token 1 of /dev/a", SAVE]
    assert planned(replace(bound, keyslots=(0,), tokens=(), bindings=()), wanted) == []
    assert planned(luks.Disk("blank", GIB), wanted) == [], "nothing is formatted to be unbound"
    assert planned(replace(DONE, key_slots=()), replace(wanted, recovery=luks.Key("rk"))) == [
        RECOVER.format(2),
        UNBIND,
        SAVE,
    ]
    # The servers of a policy that is written once for all disks are nothing to this one.
    plan = resource(wanted).plan(luks.State({"/dev/a": bound}, {"http://t1": None}))
    assert plan.warnings == [] and plan.refusals == []


def test_the_last_binding_stays_while_nothing_else_opens() -> None:
    assert "/dev/a keeps its binding: no given key opens it" in refusals(DONE, wish("unbound"))


UUID = "6cd5edc1-a2d9-419a-92b6-6e4b15486770"
ERASE = f"erase all keyslots and the LUKS2 header {UUID} of /dev/a; its data is lost"


def test_absent_closes_and_erases_only_what_is_named() -> None:
    there = replace(DONE, uuid=UUID)
    assert planned(there, wish("absent")) == ["close luks-a on /dev/a"]
    assert planned(replace(there, mapper=""), wish("absent")) == []
    assert planned(luks.Disk("missing"), wish("absent")) == []
    assert planned(luks.Disk("foreign", GIB, ("xfs",), ("mount /srv",)), wish("absent")) == []
    named = replace(wish("absent"), erase=UUID)
    kept = replace(there, left_backups=(f"/backup/luks-a-{UUID}.img",))
    forget = f"remove /backup/luks-a-{UUID}.img, the backup of an erased header"
    assert planned(kept, named) == ["close luks-a on /dev/a", ERASE, forget]
    # Something else was written over the beginning; it goes too, and that is said.
    over = luks.Disk("damaged", GIB, ("PMBR", "crypto_LUKS", "gpt"), uuid=UUID)
    header = f"the LUKS2 header {UUID} of /dev/a"
    assert planned(over, named) == [f"erase all keyslots and {header}, and wipe PMBR, gpt; its data is lost"]
    held = replace(over, signatures=("crypto_LUKS",), users=("device luks-a",), mapper="luks-a")
    assert planned(held, named) == ["close luks-a on /dev/a", ERASE]
    # Killed after the first copy of the header, and before the backup was removed.
    half = luks.Disk("damaged", GIB, ("crypto_LUKS",), uuid=UUID, left_backups=kept.left_backups)
    assert planned(half, named) == [ERASE, forget]
    assert planned(luks.Disk("blank", GIB, left_backups=kept.left_backups), named) == [forget]
    assert planned(luks.Disk("foreign", GIB, ("xfs",)), named) == planned(luks.Disk("missing"), named) == []
    assert planned(luks.Disk("blank", GIB), named) == []


def test_erase_is_refused() -> None:
    named = replace(wish("absent"), erase=UUID)
    other = replace(DONE, uuid="77", mapper="")
    assert f"/dev/a carries the LUKS2 header 77, and erase names {UUID}" in refusals(other, named)
    used = replace(DONE, uuid=UUID, mapper_users=("mount /srv",))
    assert "cannot be closed: luks-a is in use by mount /srv" in refusals(used, named)
    assert "it goes with absent alone" in wrong(replace(named, state="closed"))
    assert "is labelled luks-b" in refusals(replace(DONE, uuid=UUID, label="luks-b"), named)
    assert "is LUKS1" in refusals(luks.Disk("luks1", GIB, uuid=UUID), named)
    held = luks.Disk("damaged", GIB, ("crypto_LUKS", "gpt"), ("partition a1",), UUID)
    assert "is in use by partition a1, and what is in use is not erased; if nothing on these" in refusals(held, named)
    assert "sudo partx --delete /dev/a" in refusals(held, named)
    mounted = replace(held, users=("partition a1", "mount /x"))
    assert "is not erased; take it out of use first" in refusals(mounted, named)
    elsewhere = {"luks-b": UUID.replace("-", "")}
    blank = luks.Disk("blank", GIB, left_backups=("/backup/x",))
    assert "is open as luks-b; compare device and erase" in refusals(blank, named, mappers=elsewhere)
    for there, kind, signatures in (("does not exist", "missing", ()), ("holds xfs", "foreign", ("xfs",))):
        unlike = luks.Disk(kind, signatures=signatures, left_backups=("/backup/x",))
        assert f"/dev/a {there}, and the header {UUID}, of which /backup/x is a copy, was not erased" in refusals(
            unlike, named
        )


def test_force_wipe() -> None:
    forced = replace(wish(), key=luks.Key("pp"), force_wipe=True)
    formats = "format /dev/a (1.0 GiB, blank) as LUKS2"
    rest = [formats, BIND, FIRST, SAVE, OPEN]
    assert planned(luks.Disk("foreign", GIB, ("ext2", "gpt")), forced) == [
        "wipe ext2, gpt from /dev/a (1.0 GiB)",
        *rest,
    ]
    old = luks.Disk("luks1", GIB, ("crypto_LUKS",), uuid="77")
    assert planned(old, forced) == ["wipe crypto_LUKS from /dev/a (1.0 GiB)", *rest]
    assert planned(DONE, forced) == [], "LUKS2 is never wiped"
    for disk in (luks.Disk("foreign", GIB, ("xfs",), ("swap",)), luks.Disk("luks1", GIB, (), ("device x",))):
        assert "what is in use is never wiped" in refusals(disk, forced)
    for disk in (luks.Disk("foreign", GIB, ("xfs",)), luks.Disk("luks1", GIB)):
        told = refusals(disk, wish())
        assert "if nothing on it is needed, make it blank: wipefs --all /dev/a" in told, "what users of the role can do"
        assert "where the module is called by itself, force_wipe does that" in told
    for state in ("unbound", "absent"):
        assert "is LUKS1, which is left alone" in refusals(luks.Disk("luks1", GIB), replace(forced, state=state))
    damaged = luks.Disk("damaged", GIB, ("crypto_LUKS",), uuid="77")
    erased = replace(DONE, keyslots=(), bindings=(), tokens=())
    assert "carries LUKS2 without a key, and was not being formatted" in refusals(erased, forced)
    under = replace(damaged, signatures=("PMBR", "crypto_LUKS", "gpt"))
    assert "with a damaged header beside PMBR, gpt, and is never wiped" in refusals(under, forced)
    for state in ("present", "opened", "closed", "unbound"):
        assert "with a damaged header, and is never wiped" in refusals(damaged, replace(forced, state=state))
    assert "no passphrase was given" in refusals(
        luks.Disk("luks1", GIB), replace(forced, key=luks.Key()), passphrase=""
    )


def test_mapper_states() -> None:
    def steps(state: str, mapper: str) -> list[str]:
        plan = resource(wish(state)).plan(luks.State({"/dev/a": replace(DONE, mapper=mapper)}, UP))
        return [step.sentence for step in plan.steps]

    assert steps("present", "") == [] and steps("present", "luks-a") == []
    assert steps("opened", "") == [OPEN]
    assert steps("closed", "luks-a") == ["close luks-a on /dev/a"] and steps("closed", "") == []


@pytest.mark.parametrize(
    ("disk", "says"),
    [
        (luks.Disk("missing"), "/dev/a does not exist"),
        (luks.Disk("luks1"), "/dev/a is LUKS1"),
        (luks.Disk("foreign", GIB, ("xfs",)), "/dev/a holds data (xfs)"),
        (luks.Disk("blank", GIB, (), ("mount /srv",)), "/dev/a is in use by mount /srv"),
        (replace(DONE, label="luks-b"), "/dev/a is labelled luks-b, and luks-a is declared"),
        (luks.Disk("foreign", GIB, ("xfs",), ("mount /srv",)), "/dev/a holds data (xfs) and is in use by mount /srv"),
        (replace(DONE, mapper="elsewhere"), "/dev/a is open as elsewhere"),
        (replace(DONE, holds_backups=True), "/dev/a carries /backup itself"),
        (replace(DONE, bindings=(), keyslots=tuple(range(32))), "all 32 keyslots are in use"),
    ],
)
def test_refusals(disk: luks.Disk, says: str) -> None:
    assert says in refusals(disk)


@pytest.mark.parametrize("label", ["", "luks-a", "data"])
def test_label_that_names_no_other_disk_of_this_collection(label: str) -> None:
    assert refusals(replace(DONE, label=label)) == ""


def test_more_refusals() -> None:
    assert "not one line" in wrong(passphrase="pp\n")
    assert "no passphrase was given" in refusals(luks.Disk("blank", GIB), passphrase=None)
    assert "in use by mount /x" in refusals(replace(DONE, mapper_users=("mount /x",)), wish("closed"))
    assert "belongs to the LUKS device 77" in refusals(replace(DONE, mapper=""), mappers={"luks-a": "77"})
    assert "device /dev/a is declared twice; name luks-a is declared twice" in wrong(wish(), wish())
    assert "cannot be bound: no pin" in refusals(replace(DONE, bindings=()), binder=Binder(obstacle="no pin"))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "-x", "a/b", "../../x", "control", "a b", "luks-\u00fc", "x" * 81, "a\n"]
)
def test_names_that_are_no_names_of_a_mapper_and_a_backup(name: str) -> None:
    assert f"/dev/a: its name is {name!r}" in wrong(replace(wish(), name=name))


@pytest.mark.parametrize("erase", ["*", "????", "6cd5edc1", UUID[9:], f"{UUID}*", "../x"])
def test_a_header_is_given_up_by_its_whole_uuid(tmp_path: Path, erase: str) -> None:
    assert f"erase is {erase!r}; give the whole UUID" in wrong(replace(wish("absent"), erase=erase))


def test_declarations_that_are_refused(tmp_path: Path) -> None:
    assert "a: give the whole path of the disk" in wrong(wish(device="a"))
    assert "give the whole path" in wrong(wish(device="/dev/a\0"))
    for path in ("/root/a key", "/root/a\tkey", "/root/*", "/root/k?y", "/root/[k]", "/root/k\\y"):
        assert f"keyfile is {path!r}, and clevis takes no path" in wrong(replace(wish(), key=luks.Key(file=path)))
    assert "the passphrase has a NUL" in wrong(passphrase="p\0p")
    assert "the passphrase is not text" in wrong(passphrase="\udcff")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("relative")):
        assert f"header_backup_dir {place} is no directory" in wrong(backup=str(place))


def test_a_disk_may_have_its_backups_elsewhere(tmp_path: Path) -> None:
    own, disk = tmp_path / "own", head(tmp_path, "trixie")
    own.mkdir()
    backup = own / f"luks-a-{headers.uuid_of(disk.read_bytes())}.img"
    backup.write_bytes(disk.read_bytes())
    other = replace(wish(device=str(tmp_path / "none"), state="absent"), name="luks-b")
    for folder, saved in (("", False), (str(own), True)):
        wanted = replace(wish(device=str(disk)), header_backup_dir=folder)
        state = resource(wanted, other, run=Recording(dump("trixie", "tang")), backup=str(tmp_path)).read()
        assert state.disks[str(disk)].saved is saved and state.exposed == ((str(backup),) if saved else ())
    assert planned(replace(DONE, saved=False), replace(wish(), header_backup_dir="/own")) == [
        "back up the LUKS header of /dev/a to /own"
    ]
    on_it = luks.State({"/dev/a": replace(DONE, holds_backups=True)}, UP)
    assert "/dev/a carries /own itself" in resource(replace(wish(), header_backup_dir="/own")).plan(on_it).refusals[0]
    assert "header_backup_dir relative is no directory" in wrong(replace(wish(), header_backup_dir="relative"))


def test_what_is_declared_for_all_disks_may_differ_for_one() -> None:
    none = dict.fromkeys(module.DEVICE_OPTIONS)
    given = {**none, "device": "/dev/a", "name": "luks-a", "state": "opened"}
    own = {"rotation": "report", "header_backup_dir": "/own", "remove_passphrase": True, "allow_no_recovery": True}
    shared = {**none, "rotation": "ignore", "remove_passphrase": False, "allow_no_recovery": False}
    for more, wanted in ((own, own), ({}, {**shared, "header_backup_dir": ""})):
        made = module.wish({**given, **more}, shared)
        assert {name: getattr(made, name) for name in own} == {name: wanted[name] for name in own}


def test_backups_of_a_header_that_is_elsewhere_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = replace(wish("absent"), erase=UUID)
    blank = luks.Disk("blank", GIB, left_backups=(f"/backup/luks-b-{UUID}.img",))
    both = {"/dev/a": blank, "/dev/b": replace(DONE, uuid=UUID)}
    there = replace(wish("opened", device="/dev/b"), name="luks-b")
    plan = resource(named, there).plan(luks.State(both, UP))
    assert f"/dev/a does not carry {UUID}, which is on /dev/b" in "; ".join(plan.refusals)
    monkeypatch.setattr(reading, "BY_UUID", str(tmp_path))
    (tmp_path / "sdx").touch()
    (tmp_path / UUID).symlink_to(tmp_path / "sdx")
    assert f"does not carry {UUID}, which is on {tmp_path}/sdx" in refusals(blank, named)
    itself = replace(named, device=str(tmp_path / "sdx"))
    assert resource(itself).plan(luks.State({itself.device: blank}, UP)).refusals == []


def test_two_disks_with_one_header_are_refused() -> None:
    second = replace(wish(device="/dev/b"), name="luks-b")
    plan = resource(wish(), second).plan(luks.State({"/dev/a": DONE, "/dev/b": DONE}, UP))
    assert "/dev/a and /dev/b carry the same LUKS header u: one is a copy" in "; ".join(plan.refusals)


@pytest.mark.parametrize("numbers", [{"a": "8:0", "b": "8:16"}, {"a": "8:1", "b": "8:16"}])
def test_the_mapper_of_a_copy_is_not_taken_for_that_of_the_disk(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, numbers: dict[str, str]
) -> None:
    monkeypatch.setattr(Kernel, "number", staticmethod(lambda path: numbers.get(Path(path).name, "")))
    uuid = headers.uuid_of(head(tmp_path, "trixie", "a").read_bytes())
    (tmp_path / "sys/devices/dm-3/dm/uuid").write_text(f"CRYPT-LUKS2-{uuid.replace('-', '')}-luks-gv-0\n")
    head(tmp_path, "trixie", "b")
    original, copy = (replace(wish("present", device=str(tmp_path / name)), name="luks-x") for name in "ab")
    run = Recording(dump("trixie", "tang"))
    own = resource(original, run=run, root=tmp_path)
    state = own.read()
    assert (state.disks[original.device].mapper, state.disks[original.device].twin) == ("luks-gv-0", "")
    assert own.plan(state).refusals == []
    for wanted in (copy, replace(copy, state="absent", erase=uuid)):
        other = resource(wanted, run=run, root=tmp_path)
        state = other.read()
        assert state.disks[copy.device].mapper == ""
        refused = other.plan(state).refusals
        assert f"{uuid}, which is open as luks-gv-0 on another disk: one is a copy" in refused[0]


def test_a_disk_that_is_being_reencrypted_is_left_alone(tmp_path: Path) -> None:
    data = json.loads(dump("trixie", "tang"))
    data["config"]["requirements"] = {"mandatory": ["online-reencrypt-v2"]}
    path = head(tmp_path, "trixie")
    for state in ("present", "opened", "closed", "unbound"):
        devices = resource(wish(state, device=str(path)), run=Recording(json.dumps(data)))
        plan = devices.plan(devices.read())
        assert plan.steps == []
        assert plan.refusals == [
            f"{path} is being reencrypted (online-reencrypt-v2), and is left alone; bring that to its end first: "
            f"cryptsetup reencrypt --resume-only {path}"
        ]


@pytest.mark.parametrize("make", [lambda path: path.touch(), lambda path: path.mkdir()])
def test_a_keyfile_has_a_key_in_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "key")
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    wanted = replace(wish(device=str(path)), key=luks.Key(file=str(tmp_path / "key")))
    run = Recording()
    plan = resource(wanted, run=run, backup=str(tmp_path)).plan(luks.State({str(path): luks.Disk("blank", GIB)}, UP))
    with pytest.raises(ClusterError, match="is not a file with a key in it"):
        plan.steps[0].apply()
    assert run.calls == []


def test_nothing_is_wiped_for_a_format_that_cryptsetup_does_not_take(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))

    class Picky(Recording):
        def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
            done = super().__call__(argv, **options)
            if argv[1] == "luksFormat":
                raise ClusterError("cryptsetup luksFormat: unsupported")
            return done

    run = Picky(wipefs='{"signatures": [{"device": "disk", "type": "xfs"}]}')
    wanted = replace(wish(device=str(path)), force_wipe=True, format={"key-size": 123})
    devices = resource(wanted, run=run, backup=str(tmp_path / "backup"))
    plan = devices.plan(luks.State({str(path): luks.Disk("foreign", GIB, ("xfs",))}, UP))
    with pytest.raises(ClusterError, match="unsupported"):
        plan.steps[0].apply()
    assert not any("--all" in argv or str(path) in argv for argv in run.calls)
    assert list((tmp_path / "backup").iterdir()) == []


# Reading


def head(tmp_path: Path, release: str, name: str = "disk") -> Path:
    """Make a disk of a recorded binary header, both copies of it whole; what it says is left to `Recording`."""
    path, first = tmp_path / name, (RECORDED / release / "header.bin").read_bytes()
    length = int.from_bytes(first[headers.SIZE_AT], "big")
    path.write_bytes(summed(first, length) + summed(headers.SECOND_MAGIC + first[6:], length))
    os.truncate(path, HEADER_SIZE)
    return path


def summed(binary: bytes, length: int) -> bytes:
    """Return a copy of a header without any text, with its checksum."""
    start, end = headers.SUM_AT.start, headers.SUM_AT.stop
    copy = (binary[:start] + bytes(end - start) + binary[end:]).ljust(length, b"\0")
    return copy[:start] + hashlib.sha256(copy).digest().ljust(end - start, b"\0") + copy[end:]


def dump(release: str, name: str) -> str:
    return (RECORDED / release / f"{name}.json").read_text()


class Failing(Recording):
    """A cryptsetup that reads no header, and says why."""

    def __init__(self, said: str) -> None:
        super().__init__()
        self.said = said

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        if argv[1] == "luksDump":
            raise CommandFailed(f"cryptsetup luksDump failed with exit code 1: {self.said}")
        return super().__call__(argv, **options)


def test_a_disk_that_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    disk = str(head(tmp_path, "trixie"))
    torn = resource(wish(device=disk), run=Failing(f"Device {disk} is not a valid LUKS device."))
    assert torn.read().disks[disk].kind == "damaged"
    with pytest.raises(CommandFailed, match="Input/output error"):
        resource(wish(device=disk), run=Failing("Input/output error")).read()


@pytest.mark.parametrize("release", RELEASES)
def test_read_bound_device(tmp_path: Path, release: str) -> None:
    disk = head(tmp_path, release)
    run = Recording(dump(release, "tang"))
    devices = resource(wish(device=str(disk)), run=run, backup=str(tmp_path / "backup"))
    state = devices.read().disks[str(disk)]
    assert (state.kind, state.keyslots, state.tokens, state.saved) == ("luks2", (0, 1), (0,), False)
    assert state.label == "luks-x"
    assert [(binding.token, binding.keyslot, binding.first) for binding in state.bindings] == [(0, 1, True)]
    assert len(state.uuid) == 36 and state.uuid.count("-") == 4
    assert len(run.calls) == 1, "one process per LUKS device"
    backup = tmp_path / "backup"
    backup.mkdir()
    image = backup / f"luks-a-{state.uuid}.img"
    image.write_bytes(disk.read_bytes()[:-1])
    assert not devices.read().disks[str(disk)].saved, "it is not whole"
    os.truncate(image, HEADER_SIZE)
    assert devices.read().disks[str(disk)].saved
    image.write_bytes(disk.read_bytes()[:0x8000] + b"x")
    os.truncate(image, HEADER_SIZE)
    assert not devices.read().disks[str(disk)].saved


@pytest.mark.parametrize("policy", ["http://t1", None])
@pytest.mark.parametrize("state", ["opened", "closed", "unbound"])
def test_the_binding_that_may_stay_is_tried_once(tmp_path: Path, state: str, policy: str | None) -> None:
    binder, disk = Binder(), str(head(tmp_path, "trixie"))
    devices = resource(wish(state, policy, device=disk), binder=binder, run=Recording(dump("trixie", "tang")))
    assert [devices.read().disks[disk].dead for _ in range(2)] == [(), ()]
    assert binder.calls == (["prove 1"] if policy and state != "unbound" else [])
    binder = Binder(proves=False)
    devices = resource(wish(state, policy, device=disk), binder=binder, run=Recording(dump("trixie", "tang")))
    assert devices.read().disks[disk].dead == ((1,) if policy and state != "unbound" else ())
    assert binder.calls == (["prove 1", "try the policy", "prove 1"] if policy and state != "unbound" else [])


def test_a_binding_is_kept_when_a_new_one_would_not_unlock_either(tmp_path: Path) -> None:
    disk = str(head(tmp_path, "trixie"))
    binder = Binder(proves=False, failing="the TPM is off")
    wanted = replace(wish(device=disk), name="luks-x")
    devices = resource(wanted, binder=binder, run=Recording(dump("trixie", "tang")), backup=str(tmp_path))
    plan = devices.plan(devices.read())
    assert [step.sentence for step in plan.steps] == [
        f"back up the LUKS header of {disk} to {tmp_path}",
        f"open {disk} as luks-x",
    ]
    assert plan.refusals == [] and binder.calls == ["prove 1", "try the policy"]
    assert plan.warnings == [f"{disk} was not unlocked by its binding, and a new one would not either: the TPM is off"]


def test_nothing_is_bound_to_a_policy_that_yields_nothing(tmp_path: Path) -> None:
    binder, run = Binder(failing="the server recovers nothing"), Recording(dump("trixie", "tang"))
    path = head(tmp_path, "trixie")
    with pytest.raises(ClusterError, match="what is bound to its policy would not come back: the server recovers"):
        apply(replace(DONE, bindings=(luks.Binding(0, 1, OTHER),)), path, binder, run)
    assert binder.calls == ["try the policy"]


def test_while_a_server_is_silent_a_keyslot_with_another_key_is_left_alone() -> None:
    held = replace(DONE, bindings=(replace(FRESH, first=False, foreign=True),))
    assert sentences(held, {"http://t1": None}) == []


def test_without_a_free_keyslot_a_dead_binding_stays() -> None:
    full = replace(DONE, keyslots=tuple(range(luks.KEYSLOTS)), dead=(1,))
    plan = resource().plan(luks.State({"/dev/a": full}, UP))
    assert plan.steps == [] and plan.refusals == []
    assert "gets no other one: all 32 keyslots are in use" in plan.warnings[0]


def test_a_binding_that_works_stays_when_nothing_is_bound_anew() -> None:
    disk = replace(DONE, keyslots=(0, 1, 2), tokens=(0, 1), bindings=(FRESH, luks.Binding(1, 2, WANTED)), dead=(1,))
    devices = resource(replace(wish(), rotation="ignore"), binder=Binder(stale="the key was rotated"))
    steps = [step.sentence for step in devices.plan(luks.State({"/dev/a": disk}, UP)).steps]
    assert steps[:2] == ["let /dev/a try keyslot 2 first", "remove the binding of /dev/a to http://t1 from keyslot 1"]


def test_a_binding_is_not_judged_without_its_servers_or_clevis(tmp_path: Path) -> None:
    class Away(Binder):
        def look(self, urls: Collection[str]) -> luks.Servers:
            return dict.fromkeys(urls)

    class Missing(Binder):
        def secret(self, device: str, slot: int) -> str:
            raise NotYet("clevis is not installed")

    disk = str(head(tmp_path, "trixie"))
    for binder in (Away(proves=False), Missing()):
        found = resource(wish(device=disk), binder=binder, run=Recording(dump("trixie", "tang"))).read()
        assert found.disks[disk].dead == () and binder.calls == [] and not found.disks[disk].bindings[0].foreign
    # What clevis did not make is not taken for its binding by a host that cannot try it.
    data = json.loads(dump("trixie", "tang"))
    data["keyslots"]["1"]["kdf"] = {"type": "argon2id", "time": 4}
    found = resource(wish("unbound", None, disk), binder=Missing(), run=Recording(json.dumps(data))).read()
    assert found.disks[disk].bindings[0].foreign and found.disks[disk].other_slots == (0, 1)


def test_a_policy_that_makes_no_sense_is_refused_and_not_tried(tmp_path: Path) -> None:
    class Senseless(Binder):
        def faults(self, policy: str) -> list[str]:
            return ["it names nobody"]

        def canonical(self, policy: str) -> dict[str, Any]:
            raise IndexError

    wanted = replace(wish(device=str(head(tmp_path, "trixie"))), name="luks-x")
    devices = resource(wanted, binder=Senseless(), run=Recording(dump("trixie", "tang")))
    assert "it names nobody" in devices.plan(devices.read()).refusals[0]


def test_what_forbids_a_new_binding_is_told_without_a_trial(tmp_path: Path) -> None:
    binder = Binder(proves=False, obstacle="no thumbprint is pinned")
    wanted = replace(wish(device=str(head(tmp_path, "trixie"))), name="luks-x")
    devices = resource(wanted, binder=binder, run=Recording(dump("trixie", "tang")))
    plan = devices.plan(devices.read())
    assert plan.refusals == [] and "no thumbprint is pinned" in plan.warnings[0] and binder.calls == ["prove 1"]


def test_a_proof_that_takes_too_long_is_none(tmp_path: Path) -> None:
    class Slow(Binder):
        def secret(self, device: str, slot: int) -> str:
            raise CommandFailed("clevis-decrypt did not finish")

    disk = str(head(tmp_path, "trixie"))
    devices = resource(wish(device=disk), binder=Slow(failing="no answer"), run=Recording(dump("trixie", "tang")))
    assert devices.read().disks[disk].doubt == "no answer"


def test_two_tokens_without_a_keyslot_are_two_orphans(tmp_path: Path) -> None:
    data = json.loads(dump("trixie", "tang"))
    data["tokens"] = {str(number): {**data["tokens"]["0"], "keyslots": []} for number in (0, 1)}
    disk = str(head(tmp_path, "trixie"))
    found = resource(wish(device=disk), run=Recording(json.dumps(data))).read().disks[disk]
    assert [(one.shared, one.keyslot) for one in found.orphans] == [(False, None)] * 2


@pytest.mark.parametrize("change", ["stale", "policy"])
def test_an_orphan_stays_while_the_disk_cannot_be_bound(tmp_path: Path, change: str) -> None:
    binder, run = Binder(failing="the server recovers nothing"), Recording(dump("trixie", "tang"))
    binder.stale = "the key was rotated" if change == "stale" else ""
    policy = OTHER if change == "policy" else WANTED
    disk = replace(DONE, bindings=(luks.Binding(0, 1, policy), luks.Binding(1, None, OTHER)), tokens=(0, 1))
    with pytest.raises(ClusterError, match="was left as it is"):
        apply(disk, head(tmp_path, "trixie"), binder, run)
    assert [call for call in changes(run) if "token" in call] == []


def test_a_rotated_key_of_a_server_that_recovers_nothing_stays() -> None:
    plan = resource(binder=Binder(stale="the key was rotated")).plan(
        luks.State({"/dev/a": replace(DONE, doubt="the server recovers nothing")}, UP)
    )
    assert plan.steps == [] and len(plan.warnings) == 2


def test_nothing_is_formatted_for_a_policy_that_yields_nothing(tmp_path: Path) -> None:
    run, disk = Recording(), tmp_path / "disk"
    disk.write_bytes(bytes(8192))
    with pytest.raises(ClusterError, match="could not be bound: what is bound to its policy would not come back"):
        apply(luks.Disk("blank", GIB), disk, Binder(failing="the server recovers nothing"), run)
    assert changes(run) == []


def test_a_passphrase_in_the_keyslot_of_a_binding_is_not_taken_for_the_binding(tmp_path: Path) -> None:
    data = json.loads(dump("trixie", "tang"))
    data["keyslots"]["1"]["kdf"] = {"type": "argon2id", "time": 4}
    disk = str(head(tmp_path, "trixie"))
    goes = f"remove clevis token 0 of {disk}; keyslot 1 holds a key that it does not yield now"
    for wanted in (wish(device=disk), wish(policy="http://t2", device=disk), wish("unbound", None, disk)):
        run = Recording(json.dumps(data))
        run.keys = {"0": "pp"}
        wanted = replace(wanted, name="luks-x")
        devices = resource(wanted, binder=Binder(proves=False), run=run, backup=str(tmp_path))
        plan = devices.plan(devices.read())
        assert goes in [step.sentence for step in plan.steps], plan
        assert 1 in plan.predicted.disks[disk].keyslots and plan.refusals == []
        binder = Binder()
        (held,) = resource(wanted, binder=binder, run=run, backup=str(tmp_path)).read().disks[disk].bindings
        assert not held.foreign and binder.calls[0] == "prove 1"


@pytest.mark.parametrize("release", RELEASES)
def test_read_orphan(tmp_path: Path, release: str) -> None:
    disk = head(tmp_path, release)
    state = resource(wish(device=str(disk)), run=Recording(dump(release, "sss_and_orphan"))).read()
    assert sorted((b.token, b.keyslot) for b in state.disks[str(disk)].bindings if b.keyslot is None) == [(0, None)]
    assert [b.keyslot for b in state.disks[str(disk)].bindings if b.keyslot is not None] == [2]


@pytest.mark.parametrize("release", RELEASES)
def test_read_signatures_with_one_process(tmp_path: Path, release: str) -> None:
    blank, ext = tmp_path / "blank.img", tmp_path / "ext.img"
    for path in (blank, ext):
        path.write_bytes(bytes(8192))
    run = Recording(wipefs=dump(release, "wipefs"))
    wishes = [wish(device=str(blank)), replace(wish(device=str(ext)), name="luks-b")]
    state = resource(*wishes, run=run).read()
    assert state.disks[str(blank)].kind == "blank" and state.disks[str(blank)].size == 8192
    assert (state.disks[str(ext)].kind, state.disks[str(ext)].signatures) == ("foreign", ("ext2",))
    assert len(run.calls) == 1


def test_before_cryptsetup_is_installed(tmp_path: Path) -> None:
    disk = head(tmp_path, "trixie")
    devices = resource(replace(wish(device=str(disk)), name="luks-x"))
    with pytest.raises(NotYet):
        devices.read()
    plan = devices.plan(devices.blank())
    assert plan.steps == [] and plan.refusals == [] and "carries LUKS2" in plan.warnings[0]


def test_luks1_and_missing(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(4096))
    wishes = [wish(device=str(old)), replace(wish(device=str(tmp_path / "none")), name="luks-b")]
    kinds = [disk.kind for disk in resource(*wishes).read().disks.values()]
    assert kinds == ["luks1", "missing"]


def test_read_what_killed_runs_leave(tmp_path: Path) -> None:
    path = head(tmp_path, "trixie")
    uuid = headers.uuid_of(path.read_bytes())
    bound = json.loads(dump("trixie", "tang"))
    lost = {**bound, "tokens": {}}
    lost["keyslots"]["1"]["kdf"] = {"type": "pbkdf2", "iterations": 1000}
    note = tmp_path / f"luks-a-{uuid}.binding"

    def read(data: dict[str, Any], name: str = "luks-a") -> luks.Disk:
        wanted = replace(wish(device=str(path)), name=name)
        return resource(wanted, run=Recording(json.dumps(data)), backup=str(tmp_path)).read().disks[str(path)]

    assert read(lost).leftover is None, "nobody noted it"
    note.write_text("1\n")
    assert read(lost).leftover == 1
    assert read({**bound, "keyslots": lost["keyslots"]}).leftover is None, "it has its token"
    lost["keyslots"]["1"]["kdf"] = {"type": "argon2id"}
    assert read(lost).leftover is None, "a key that a person added"
    empty = {**bound, "keyslots": {}, "tokens": {}}
    assert read(empty, "luks-x").kind == "luks2", "nobody noted that it is being formatted"
    (tmp_path / f"luks-x-{uuid}.formatting").touch()
    assert read(empty, "luks-x").kind == "unfinished"
    assert read(empty).kind == "luks2", "it is called luks-x"


def test_read_luks1_and_the_rest_of_an_erased_header(tmp_path: Path) -> None:
    old, half = tmp_path / "luks1.img", tmp_path / "half.img"
    old.write_bytes(b"LUKS\xba\xbe\x00\x01" + bytes(4096))
    half.write_bytes(bytes(8192))
    wishes = [wish(device=str(old)), replace(wish(device=str(half)), name="luks-b")]
    disks = resource(*wishes, run=Recording(wipefs=dump("bookworm", "wipefs_luks"))).read().disks
    assert (disks[str(old)].kind, disks[str(old)].signatures) == ("luks1", ("crypto_LUKS",))
    assert (disks[str(half)].kind, disks[str(half)].uuid) == ("damaged", "5ad86002-d295-48a5-bbc2-9477be0a7d6f")


def test_a_header_under_something_else_is_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "half.img"
    path.write_bytes(bytes(8192))
    rows = json.loads(dump("bookworm", "wipefs_luks"))
    rows["signatures"] += [{"device": "half.img", "type": name, "uuid": "77"} for name in ("PMBR", "gpt")]
    run = Recording(wipefs=json.dumps(rows))
    disk = resource(wish(device=str(path)), run=run).read().disks[str(path)]
    assert (disk.kind, disk.uuid) == ("damaged", "5ad86002-d295-48a5-bbc2-9477be0a7d6f")


def test_what_a_killed_backup_left_is_left_of_the_header_too(tmp_path: Path) -> None:
    files = {suffix: tmp_path / f"luks-a-{UUID}{suffix}" for suffix in (".img", ".new", ".binding")}
    for file in files.values():
        file.touch()
    path = tmp_path / "blank.img"
    path.write_bytes(bytes(8192))
    named = replace(wish("absent", device=str(path)), erase=UUID)
    devices = resource(named, backup=str(tmp_path))
    for step in devices.plan(devices.read()).steps:
        step.apply()
    assert not [file for file in files.values() if file.exists()]
    assert devices.plan(devices.read()).steps == []


def test_damaged_token_names_the_device(tmp_path: Path) -> None:
    disk = head(tmp_path, "trixie")
    data = json.dumps({"keyslots": {}, "digests": {}, "tokens": {"0": {"type": "clevis", "keyslots": []}}})
    with pytest.raises(ClusterError, match=f"{disk}: its clevis token"):
        resource(wish(device=str(disk)), run=Recording(data)).read()


def test_view_tells_all_but_secrets() -> None:
    key = {"url": "http://t1", "kid": "old", "known": ["old"]}
    binding, orphan = luks.Binding(3, 1, WANTED, (key,), first=True), luks.Binding(4, None, OTHER)
    disk = replace(DONE, bindings=(orphan, binding), backup="/backup/luks-a-u.img", sha256="5a")
    (shown,) = resource().view(luks.State({"/dev/a": disk}, UP))["devices"].values()
    assert shown == {
        "kind": "luks2",
        "size": DONE.size,
        "sector_size": None,
        "uuid": "u",
        "mapper": "luks-a",
        "torn": False,
        "keyslots": [0, 1],
        "keyslot": 1,
        "token_id": 3,
        "policy": WANTED,
        "policy_before": None,
        "recovery_keyslot": None,
        "tang_keys": [{"url": "http://t1", "kid": "old", "advertised": False}],
        "rotated_keys": ["old"],
        "orphan_tokens": [4],
        "unreachable": [],
        "header_backup": {"path": "/backup/luks-a-u.img", "sha256": "5a"},
    }
    (shown,) = resource().view(luks.State({"/dev/a": disk}, {"http://t1": None}))["devices"].values()
    assert shown["unreachable"] == ["http://t1"] and shown["rotated_keys"] == []


def test_policy_before_is_that_of_the_first_look(tmp_path: Path) -> None:
    disk = head(tmp_path, "trixie")
    run = Recording(dump("trixie", "tang"))
    devices = resource(wish(device=str(disk)), run=run)
    devices.read()
    run.dump = dump("trixie", "unbound")
    (shown,) = devices.view(devices.read())["devices"].values()
    assert shown["policy"] is None and shown["policy_before"] == WANTED


def test_info_asks_the_servers_of_the_bindings_and_finds_the_backup(tmp_path: Path) -> None:
    disk = head(tmp_path, "trixie")
    uuid = headers.uuid_of(disk.read_bytes())
    backup = tmp_path / f"luks-x-{uuid}.img"
    backup.write_bytes(disk.read_bytes())
    os.truncate(backup, HEADER_SIZE)
    binder, run = Binder(), Recording(dump("trixie", "tang"))
    reader = reading.Reader(run, binder.parse, str(tmp_path), Kernel(Path("/nonexistent")))
    found = showing.info(reader, binder, [str(disk), str(tmp_path / "none")])["devices"]
    assert found[str(disk)]["tang_keys"] == [{"url": "http://t1", "kid": "k", "advertised": True}]
    assert found[str(disk)]["header_backup"] == {
        "path": str(backup),
        "sha256": hashlib.sha256(backup.read_bytes()).hexdigest(),
    }
    assert found[str(disk)]["sector_size"] == 512
    assert found[str(tmp_path / "none")]["kind"] == "missing"
    run.dump = ""
    with pytest.raises(NotYet):
        showing.info(reader, binder, [str(disk)])
    assert showing.info(reader, binder, [str(disk)], check=True)["devices"][str(disk)]["kind"] == "unread"


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A disk 8:0 with a partition and, through it, LUKS mapper 254:3 that is mounted; swap on 8:16."""
    files = {
        "sys/devices/sda/dev": "8:0",
        "sys/devices/sda/size": "2097152",
        "sys/devices/sda/sda1/dev": "8:1",
        "sys/devices/sda/sda1/partition": "1",
        "sys/devices/sda/sda1/size": "100",
        "sys/devices/sdb/dev": "8:16",
        "sys/devices/sdb/size": "8",
        "sys/devices/dm-3/dev": "254:3",
        "sys/devices/dm-3/size": "8",
        "sys/devices/dm-3/dm/uuid": "CRYPT-LUKS2-6cd5edc1a2d9419a92b66e4b15486770-luks-gv-0\n",
        "sys/devices/dm-3/dm/name": "luks-gv-0\n",
        "sys/devices/dm-4/dev": "254:4",
        "sys/devices/dm-4/dm/uuid": "LVM-abc\n",
        "proc/self/mountinfo": "36 25 254:3 / /bricks/gv0 rw - xfs /dev/mapper/luks-gv-0 rw\n",
        "proc/swaps": "Filename Type Size Used Priority\n/dev/sdb partition 1 0 -2\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    links = {
        "sys/dev/block/8:0": "sys/devices/sda",
        "sys/dev/block/8:1": "sys/devices/sda/sda1",
        "sys/dev/block/8:16": "sys/devices/sdb",
        "sys/dev/block/254:3": "sys/devices/dm-3",
        "sys/class/block/dm-3": "sys/devices/dm-3",
        "sys/class/block/dm-4": "sys/devices/dm-4",
        "sys/devices/sda/sda1/holders/dm-3": "sys/devices/dm-3",
        "sys/devices/dm-3/slaves/sda1": "sys/devices/sda/sda1",
    }
    for name, target in links.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(tmp_path / target)
    return Kernel(tmp_path)


def mounted(root: Path, *rows: str) -> Kernel:
    table = root / "proc/self/mountinfo"
    table.parent.mkdir(parents=True)
    table.write_text("".join(f"36 25 0:99 / {row} rw\n" for row in rows))
    return Kernel(root)


def test_backups_are_on_a_disk_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, source = tmp_path / "backup", tmp_path / "sda"
    folder.mkdir()
    source.touch()
    numbers = {source: "8:0"}
    monkeypatch.setattr(Kernel, "number", staticmethod(lambda path: numbers.get(Path(path), "")))
    # btrfs knows a number of its own; the innermost mount counts, and of two in one place the later one.
    over = f"{folder} rw - fuse.glusterfs node1:gv0"
    kernel = mounted(tmp_path / "a", "/ rw - ext4 /dev/x", over, f"{folder} rw shared:1 - btrfs {source}")
    assert kernel.filesystem(folder / "below") == ("8:0", "btrfs")
    found = folder.stat().st_dev
    elsewhere = mounted(tmp_path / "b", over).filesystem(folder)
    assert elsewhere == (f"{os.major(found)}:{os.minor(found)}", "fuse.glusterfs")
    assert mounted(tmp_path / "c").filesystem(folder)[1] == ""
    with pytest.raises(Refused, match="is on fuse.glusterfs, which may lie on these very disks"):
        resource(wish(), backup=str(folder), root=tmp_path / "b").read()


def test_a_mapper_outlives_its_disk(tmp_path: Path, kernel: Kernel) -> None:
    """The kernel keeps the link to a disk that vanished while it was open."""
    shutil.rmtree(tmp_path / "sys/devices/sda")
    (mapper,) = kernel.mappers()
    assert (mapper.name, mapper.below) == ("luks-gv-0", frozenset({"254:3"}))


def test_kernel(kernel: Kernel) -> None:
    assert kernel.users("8:0") == ("partition sda1",)
    assert kernel.users("8:1") == ("device luks-gv-0",)
    assert kernel.users("254:3") == ("mount /bricks/gv0",)
    assert kernel.users("8:16") == ("swap",)
    assert kernel.size("8:0") == GIB
    below = frozenset({"254:3", "8:1", "8:0"})
    assert kernel.mappers() == [Mapper("luks-gv-0", "254:3", "6cd5edc1a2d9419a92b66e4b15486770", below)]
    assert kernel.below("254:3") == {"254:3", "8:1", "8:0"}
    assert kernel.users("9:9") == ()


@pytest.mark.parametrize(
    ("number", "uuid", "users"),
    [
        ("8:0", UUID, ("partition sda1",)),
        ("8:1", UUID, ()),
        ("8:1", UUID.replace("6", "7"), ("device luks-gv-0",)),
        ("8:16", UUID, ("swap",)),
    ],
)
def test_of_what_uses_a_disk_its_own_mapper_alone_allows_a_restore(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: str, uuid: str, users: tuple[str, ...]
) -> None:
    monkeypatch.setattr(Kernel, "number", staticmethod(lambda _: number))
    disk, source = head(tmp_path, "trixie"), head(tmp_path, "trixie", "source")
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    wanted = restoring.Wanted(uuid, disk.stat().st_size, sha256)
    options: dict[str, Any] = {"source": str(source), "backup_dir": str(tmp_path), "kernel": kernel}
    header = restoring.DiskHeader(str(disk), "gv0", wanted, Recording(), replaces="gv0", **options)
    state = header.read()
    assert state.users == users
    refused = " ".join(header.plan(replace(state, sha256="another")).refusals)
    assert (f"{disk} is in use by {', '.join(users)}" in refused) is bool(users)


# Changing


def apply(disk: luks.Disk, path: Path, binder: Binder, run: Recording, servers: luks.Servers = UP) -> None:
    devices = resource(wish(device=str(path)), binder=binder, run=run, backup=str(path.parent / "backup"))
    for step in devices.plan(luks.State({str(path): disk}, servers)).steps:
        step.apply()


def changes(run: Recording) -> list[str]:
    return [" ".join(argv[1:3]) for argv in run.calls if argv[0] == "cryptsetup" and argv[1] != "luksDump"]


def tried(tmp_path: Path, wanted: luks.Wish[str], keys: dict[str, str]) -> tuple[luks.Disk, Recording]:
    run = Recording(dump("trixie", "tang"))
    run.keys = keys
    wanted = replace(wanted, device=str(head(tmp_path, "trixie")))
    return resource(wanted, run=run).read().disks[wanted.device], run


def test_keys_are_tried_only_where_it_matters(tmp_path: Path) -> None:
    _, run = tried(tmp_path, wish(), {"0": "pp"})
    assert len(run.calls) == 1
    disk, run = tried(tmp_path, keyed(), {"0": "pp", "1": "rk"})
    assert (disk.key_slots, disk.recovery_slots) == ((0,), ()), "the keyslot of the binding is none of theirs"
    assert not any("pp" in argv or "rk" in argv for argv in run.calls)
    disk, _ = tried(tmp_path, keyed(), {"0": "rk"})
    assert (disk.key_slots, disk.recovery_slots) == ((), (0,))
    absent = replace(keyed(), key=luks.Key(file=str(tmp_path / "none")))
    disk, _ = tried(tmp_path, absent, {"0": str(tmp_path / "none")})
    assert disk.key_slots == ()


def test_a_keyslot_that_opens_something_else_is_no_keyslot_of_a_key(tmp_path: Path) -> None:
    data = json.loads(dump("trixie", "tang"))
    data["keyslots"]["2"] = data["keyslots"]["0"]
    data["digests"]["1"] = {**data["digests"]["0"], "keyslots": ["2"], "segments": []}
    path = str(head(tmp_path, "trixie"))
    run = Recording(json.dumps(data))
    run.keys = {"0": "pp", "2": "rk"}
    devices = resource(replace(keyed(), device=path, name="luks-x"), run=run)
    state = devices.read()
    disk = state.disks[path]
    assert (disk.key_slots, disk.recovery_slots, disk.keyslots) == ((0,), (), (0, 1, 2))
    steps = [step.sentence for step in devices.plan(state).steps]
    assert f"add the recovery key of {path} in keyslot 3, and prove that it opens" in steps
    # A binding there is none, and none of ours.
    data["tokens"]["7"] = {**data["tokens"]["0"], "keyslots": ["2"]}
    run.dump = json.dumps(data)
    assert devices.read().disks[path].bindings == disk.bindings
    # With nothing else in it, a header has no key.
    only = {**data, "keyslots": {"2": data["keyslots"]["2"]}, "tokens": {}}
    run.dump = json.dumps(only)
    assert "carries LUKS2 without a key" in devices.plan(devices.read()).refusals[0]


def test_a_key_of_an_unbound_keyslot_opens_nothing(tmp_path: Path) -> None:
    class Unbound(Recording):
        def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
            if "open" in argv:
                raise CommandFailed(f"cryptsetup open failed with exit code 1: {self.wipefs}")
            return super().__call__(argv, **options)

    said = Unbound(wipefs="No usable keyslot is available.")
    assert reading.Reader(said, Binder().parse, "/backup").opens("/dev/a", luks.Key("pp")) is False
    with pytest.raises(CommandFailed, match="in use"):
        reading.Reader(Unbound(wipefs="in use"), Binder().parse, "/backup").opens("/dev/a", luks.Key("pp"))


def test_recovery_key_travels_on_standard_input(tmp_path: Path) -> None:
    path = head(tmp_path, "trixie")
    keyfile = tmp_path / "key"
    keyfile.write_bytes(b"\0\n")
    for key, valid, stdin in [
        (luks.Key("pp"), "pp", "pp\nrk"),
        (luks.Key("wrong"), "pp", "what the binding yields\nrk"),
        (luks.Key(file=str(keyfile)), str(keyfile), "rk"),
        (luks.Key(file=str(keyfile)), "", "what the binding yields\nrk"),
    ]:
        run = Recording(dump("trixie", "tang"))
        run.keys = {"0": valid, "2": "rk"}
        options = {"pbkdf-force-iterations": 1000, "cipher": "aes"}
        wanted = replace(wish(device=str(path)), key=key, recovery=luks.Key("rk"), format=options)
        devices = resource(wanted, run=run, backup=str(tmp_path / "backup"))
        plan = devices.plan(luks.State({str(path): DONE}, UP))
        plan.steps[0].apply()
        (argv,) = (argv for argv in run.calls if argv[1] == "luksAddKey")
        assert run.stdin == stdin and "rk" not in argv and "--pbkdf-force-iterations=1000" in argv
        assert not any("cipher" in word for word in argv)
        assert ("--key-file" in argv) == (stdin == "rk")


def test_recovery_key_that_fails_its_test_is_removed(tmp_path: Path) -> None:
    path = head(tmp_path, "trixie")
    run = Recording(dump("trixie", "tang"))
    run.keys = {"0": "pp"}
    wanted = replace(wish(device=str(path)), recovery=luks.Key("rk"))
    plan = resource(wanted, run=run).plan(luks.State({str(path): DONE}, UP))
    with pytest.raises(ClusterError, match="the recovery key failed its test"):
        plan.steps[0].apply()
    assert [argv[-1] for argv in run.calls if argv[1] == "luksKillSlot"] == ["2"]


def test_passphrase_stays_while_the_binding_does_not_unlock(tmp_path: Path) -> None:
    run = Recording(dump("trixie", "tang"))
    disk = replace(DONE, keyslots=(0, 1, 2), key_slots=(0,), recovery_slots=(2,))
    plan = resource(keyed(), run=run, binder=Binder(proves=False)).plan(luks.State({"/dev/a": disk}, UP))
    with pytest.raises(ClusterError, match="the passphrase was not removed"):
        plan.steps[0].apply()
    assert changes(run) == []


def test_binding_is_authorised_by_a_key_that_opens(tmp_path: Path) -> None:
    path = head(tmp_path, "trixie")
    for keys, authority in [({"0": "rk"}, "rk"), ({"0": "pp"}, "pp"), ({}, "a binding")]:
        binder, run = Binder(), Recording(dump("trixie", "tang"))
        run.keys = keys
        wanted = replace(keyed(), device=str(path))
        old = replace(DONE, bindings=(luks.Binding(0, 1, OTHER),), recovery_slots=(0,))
        resource(wanted, run=run, binder=binder).plan(luks.State({str(path): old}, UP)).steps[0].apply()
        assert binder.authority == authority


@pytest.mark.parametrize(
    ("now", "servers", "says"),
    [
        ('{"signatures": [{"device": "disk", "type": "btrfs"}]}', UP, "there is btrfs now; nothing was wiped"),
        ('{"signatures": []}', UP, "there is nothing now"),
        ('{"signatures": [{"device": "disk", "type": "xfs"}]}', {"http://t1": None}, "no answer from http://t1"),
    ],
)
def test_a_disk_that_changed_meanwhile_is_not_wiped(tmp_path: Path, now: str, servers: luks.Servers, says: str) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(8192))
    run = Recording(wipefs=now)
    wanted = replace(wish(device=str(path)), force_wipe=True)
    plan = resource(wanted, run=run).plan(luks.State({str(path): luks.Disk("foreign", GIB, ("xfs",))}, servers))
    with pytest.raises(ClusterError, match=says):
        plan.steps[0].apply()
    assert not any("--all" in argv or str(path) in argv[2:] for argv in run.calls if argv[1] != "--no-act")


def test_a_disk_that_changed_meanwhile_is_not_erased(tmp_path: Path) -> None:
    path = head(tmp_path, "trixie")
    run = Recording(dump("trixie", "tang"))
    wanted = replace(wish("absent", device=str(path)), erase=UUID)
    plan = resource(wanted, run=run).plan(luks.State({str(path): replace(DONE, uuid=UUID, mapper="")}))
    with pytest.raises(ClusterError, match="was not erased: it carries the LUKS2 header"):
        plan.steps[0].apply()
    assert run.calls == []


class Torn(Failing):
    """A cryptsetup that finds no header, and a wipefs that does nothing."""

    def __call__(self, argv: Sequence[str], **options: Any) -> Completed:
        return Completed(0, "", "") if argv[:2] == ["wipefs", "--all"] else super().__call__(argv, **options)


def stopping(error: BaseException) -> Callable[[int], None]:
    """Return an fsync after which nothing comes."""

    def fsync(_handle: int) -> None:
        raise error

    return fsync


def test_keyslots_go_before_the_header_that_tells_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = head(tmp_path, "trixie")
    uuid = headers.uuid_of(path.read_bytes())
    first = path.read_bytes()[: headers.BINARY_HEADER]
    path.write_bytes(first + b"\xa5" * 0x3000 + first + b"\xa5" * 12001)
    wanted = replace(wish("absent", device=str(path)), name="luks-x", erase=uuid)
    devices = resource(wanted, run=Torn(f"Device {path} is not a valid LUKS device."), backup=str(tmp_path / "backup"))
    (erase,) = devices.plan(devices.read()).steps
    monkeypatch.setattr(os, "fsync", stopping(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        erase.apply()
    assert path.read_bytes() == first + bytes(0x3000) + first + bytes(12001)
    (again,) = devices.plan(devices.read()).steps
    monkeypatch.undo()
    again.apply()
    assert not path.read_bytes().strip(b"\0")


def test_a_disk_that_takes_no_zeros_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = head(tmp_path, "trixie")
    wanted = replace(wish("absent", device=str(path)), name="luks-x", erase=headers.uuid_of(path.read_bytes()))
    devices = resource(wanted, run=Torn("is not a valid LUKS device."), backup=str(tmp_path / "backup"))
    (erase,) = devices.plan(devices.read()).steps
    monkeypatch.setattr(os, "fsync", stopping(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(ClusterError, match=f"{path} cannot be overwritten: Input/output error; its keyslots may still"):
        erase.apply()


def test_no_disk_is_formatted_without_its_keyfile(tmp_path: Path) -> None:
    path = tmp_path / "blank.img"
    path.write_bytes(bytes(8192))
    run = Recording()
    wanted = replace(wish(device=str(path)), key=luks.Key(file=str(tmp_path / "none")))
    plan = resource(wanted, run=run).plan(luks.State({str(path): luks.Disk("blank", GIB)}, UP))
    with pytest.raises(ClusterError, match="keyfile .* does not exist"):
        plan.steps[0].apply()
    assert changes(run) == []


def test_rebind_removes_keyslot_before_token(tmp_path: Path) -> None:
    binder, run = Binder(), Recording(dump("trixie", "tang"))
    disk = replace(DONE, bindings=(luks.Binding(0, 1, OTHER),))
    path = head(tmp_path, "trixie")
    uuid = path.read_bytes()[headers.UUID_AT].rstrip(b"\0").decode()
    (tmp_path / "backup").mkdir(mode=0o700)
    (tmp_path / "backup" / f"former-name-{uuid}.img").touch()
    apply(disk, path, binder, run)
    assert binder.calls == ["try the policy", "bind 2", "prove 2"]
    assert changes(run) == [
        "config --priority",
        "luksKillSlot --batch-mode",
        "token remove",
        "luksHeaderBackup --header-backup-file",
    ]
    (backup,) = (tmp_path / "backup").iterdir()
    assert backup.name == f"luks-a-{uuid}.img"
    assert backup.stat().st_mode & 0o777 == 0o400 and (tmp_path / "backup").stat().st_mode & 0o777 == 0o700


def test_failed_proof_removes_the_new_binding_and_keeps_the_old(tmp_path: Path) -> None:
    run = Recording(dump("trixie", "sss_and_orphan"))
    disk = replace(DONE, bindings=(luks.Binding(0, 1, OTHER),))
    with pytest.raises(ClusterError, match="the new binding failed its test and was removed"):
        apply(disk, head(tmp_path, "trixie"), Binder(proves=False), run)
    assert [argv[-1] for argv in run.calls if argv[1] == "luksKillSlot"] == ["2"]


def test_double_stays_when_the_keeper_does_not_unlock(tmp_path: Path) -> None:
    run = Recording(dump("trixie", "tang"))
    disk = replace(DONE, bindings=(FRESH, luks.Binding(1, 2, OTHER)))
    with pytest.raises(ClusterError, match="no other one was removed"):
        apply(disk, head(tmp_path, "trixie"), Binder(proves=False), run)
    assert changes(run) == []


def test_a_disk_that_was_taken_meanwhile_is_not_formatted(tmp_path: Path) -> None:
    path = tmp_path / "ext.img"
    path.write_bytes(bytes(8192))
    run = Recording(wipefs=dump("trixie", "wipefs"))
    with pytest.raises(ClusterError, match="no longer blank: ext2"):
        apply(luks.Disk("blank", GIB), path, Binder(), run)
    assert changes(run) == []


def test_no_disk_is_formatted_while_its_servers_are_silent(tmp_path: Path) -> None:
    path = tmp_path / "blank.img"
    path.write_bytes(bytes(8192))
    run = Recording()
    with pytest.raises(ClusterError, match="no answer from http://t1"):
        apply(luks.Disk("blank", GIB), path, Binder(), run, {"http://t1": None})
    assert changes(run) == []


def test_opening_falls_back_to_the_binding(tmp_path: Path) -> None:
    binder, run = Binder(), Recording(dump("trixie", "tang"), rc=2)
    apply(replace(DONE, mapper=""), head(tmp_path, "trixie"), binder, run)
    assert binder.calls == ["unlock luks-a"]
    assert not any("pp" in argv for argv in run.calls)
