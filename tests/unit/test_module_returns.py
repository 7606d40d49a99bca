# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module documents of its result is what it returns: documentation and results are written apart."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.binder import Clevis
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import Policy
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster import info
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.departure import Leavers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.membership import Peers
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.reading import read_cluster
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.volumes import Volumes
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks import showing
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.devices import LuksDevices
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import (
    Binding,
    Disk,
    Key,
    State,
    Wish,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.reading import Reader
from ansible_collections.personal.cluster.plugins.module_utils._backends.lvm.thin import Stack, ThinVolumes
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed
from declared import volume

PLUGINS = "ansible_collections.personal.cluster.plugins"
RECORDED = Path(__file__).parent / "recorded" / "gluster" / "11.1"
TYPES = {"str": str, "int": int, "bool": bool, "dict": dict, "list": list}
# What has names that somebody else gives, or repeats itself without end.
FREE = ("options", "pins")
Json = Mapping[str, Any]


def documented(name: str) -> dict[str, Any]:
    returned: dict[str, Any] = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").RETURN)
    return returned


def differences(fields: Json, found: Sequence[Json], place: str) -> Iterator[str]:
    """Yield what is documented and never returned, what is returned and not documented, and what is something else."""
    for name in {name for one in found for name in one} - set(fields):
        yield f"{place}.{name} is not documented"
    for name, field in fields.items():
        values = [one[name] for one in found if one.get(name) is not None]
        if not values:
            yield f"{place}.{name} is documented, and no result has it"
        if field.get("returned", "always") == "always" and any(name not in one for one in found):
            yield f"{place}.{name} is not always returned"
        yield from wrong_types(field, values, f"{place}.{name}")
        parts = [part for value in values for part in (value if isinstance(value, list) else [value])]
        below = [part for part in parts if isinstance(part, dict)]
        if below and name not in FREE:
            yield from differences(field.get("contains", {}), below, f"{place}.{name}")


def wrong_types(field: Json, values: Sequence[Any], place: str) -> Iterator[str]:
    elements = [element for value in values if isinstance(value, list) for element in value]
    for kind, found in ((field["type"], values), (field.get("elements"), elements)):
        if any(kind is None or type(value) is not TYPES[kind] for value in found):
            yield f"{place} is no {kind}"


def gluster(argv: Sequence[str], **_: Any) -> Completed:
    words = [word for word in argv[1:] if not word.startswith("-")]
    recording = {"pool": "pool", "info": "info", "status": "moving/status_rebalancing", "heal": "heal"}
    name = next(recording[word] for word in words if word in recording)
    return Completed(0, (RECORDED / f"{name}.xml").read_text(), "")


CLI = Cli(gluster, "/nonexistent", "", 0)


def no_tool(argv: Sequence[str], **_: Any) -> Completed:
    raise AssertionError(argv)


def bound_disk() -> Disk:
    """Return a disk that has all that can be told of one, bound to all kinds of pins."""
    inner = Policy.of({"threshold": 1, "tang": [{"url": "http://t1", "thp": "k"}, {"url": "http://t2", "thp": "k"}]})
    key = {"url": "http://t1", "kid": "old", "known": []}
    binding, orphan = Binding(0, 1, inner.canonical(), (key,)), Binding(1, None, inner.canonical())
    disk = Disk("luks2", 2**30, uuid="u", keyslots=(0, 1), bindings=(binding, orphan), mapper="luks-a", saved=True)
    return replace(disk, backup="/backup/luks-a-u.img", sha256="5a", sector_size=512, recovery_slots=(0,))


def with_policy(policy: Json) -> Disk:
    disk = bound_disk()
    return replace(disk, bindings=(replace(disk.bindings[0], policy=Policy.of(policy).canonical()),))


def all_disks() -> dict[str, Disk]:
    one = {"url": "http://t1", "thp": "k"}
    return {
        "/dev/a": bound_disk(),
        "/dev/b": with_policy({"threshold": 1, "tang": [one]}),
        "/dev/c": with_policy({"threshold": 1, "tpm2": {"pcr_bank": "sha256", "pcr_ids": [7]}}),
        "/dev/d": Disk("missing"),
    }


SERVERS = {"http://t1": frozenset({"k"}), "http://t2": None}


def luks_clevis_bind() -> list[Json]:
    binder, disks = Clevis(no_tool, 1), all_disks()
    wishes = [Wish[Policy](device, f"luks-{device[-1]}", "opened") for device in disks]
    devices = LuksDevices(wishes, binder, no_tool, Reader(no_tool, binder.parse, "/backup"))
    devices._policies_before = {device: disk.live[0].policy if disk.live else None for device, disk in disks.items()}
    return [devices.view(State(disks, {**SERVERS, "http://t1": None})), devices.view(State(disks, SERVERS))]


def luks_clevis_info() -> list[Json]:
    binder = Clevis(no_tool, 1)
    reader = Reader(no_tool, binder.parse, "/nonexistent")
    asked = showing.info(reader, binder, ["/nonexistent"], prove=True, key=Key("x"))
    shown = [{device: showing.shown(disk, seen) for device, disk in all_disks().items()} for seen in ({}, SERVERS)]
    return [asked, *({"devices": devices} for devices in shown)]


def gluster_volume() -> list[Json]:
    told = read_cluster(CLI)
    declared = [volume(name=name) for name in (*told.volumes, "none")]
    return [Volumes(declared, CLI, "node1", "/backups").view(told)]


def gluster_peer() -> list[Json]:
    joined, left = Peers(("node2",), CLI, "node1"), Leavers(("node2",), CLI, "node1", ())
    return [joined.view(joined.read()), left.view(left.read())]


def gluster_peer_info() -> list[Json]:
    return [info.unless_new(lambda: info.peers(CLI), check=False)]


def gluster_volume_info() -> list[Json]:
    return [info.unless_new(lambda: info.volumes(CLI, (), heal=True), check=False)]


def thin_volume() -> list[Json]:
    made = Stack(
        group=True, pool="thin-pool", chunk=2**18, zero=True, profile="p", volume="thin", filesystem="xfs", fstab="line"
    )
    return [ThinVolumes([], no_tool).view({"gv0": Stack(), "gv1": made})]


# How each module is made to tell something, and what of it is by names that the operator gives.
TOLD: dict[Callable[[], list[Json]], str] = {
    luks_clevis_bind: "devices",
    luks_clevis_info: "devices",
    gluster_volume: "volumes",
    gluster_volume_info: "volumes",
    gluster_peer: "peers",
    gluster_peer_info: "peers",
    thin_volume: "volumes",
}


@pytest.mark.parametrize("tell", TOLD, ids=lambda tell: tell.__name__)
def test_what_is_documented_of_a_result_is_what_is_returned(tell: Callable[[], list[Json]]) -> None:
    results, by_name = tell(), TOLD[tell]
    fields = documented(tell.__name__)
    # That is the engine's, and the same for all.
    fields.pop("actions", None)
    if tell is luks_clevis_info:
        # It refers to the other one for what a field contains.
        same = documented("luks_clevis_bind")["devices"]["contains"]
        for field, there in fields["devices"]["contains"].items():
            field_contains = same.get(field, {}).get("contains")
            there.update({"contains": field_contains} if field_contains else {})
    assert {name for one in results for name in one} == set(fields)
    entries = [entry for one in results for entry in one[by_name].values()]
    assert list(differences(fields[by_name].get("contains", {}), entries, by_name)) == []
