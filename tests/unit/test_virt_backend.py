# SPDX-License-Identifier: GPL-3.0-or-later
"""The libvirt backend's comparing, patching and planning, on XML that libvirt wrote."""

from __future__ import annotations

import re
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt import connection
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt import migration as module_migration
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.actions import nic_problems
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import guest_from
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.domains import Domains
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.hosting import (
    Host,
    Hosting,
    Kept,
    pool_xml,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.migration import (
    Journey,
    Migration,
    Trip,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import (
    guest_uuid,
    nic_mac,
    parse_size,
    show_size,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.patching import blank_domain, patch
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import Domain, Node, Pool
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

RECORDED = Path(__file__).parent / "recorded" / "libvirt"
RELEASES = sorted(path.name for path in RECORDED.iterdir())
IMAGE = "/srv/gv0/images/g1-vda.img"
DISK = {
    "target": None,
    "pool": "gv0",
    "name": None,
    "path": None,
    "size": "16M",
    "device": "disk",
    "format": "raw",
    "bus": "virtio",
    "cache": "none",
    "error_policy": "stop",
}
NIC = {"network": "vlans", "vlan": "blue", "mac": None, "model": "virtio"}
G1: dict[str, Any] = {
    "name": "g1",
    "uuid": None,
    "state": "defined",
    "domain_type": "qemu",
    "memory": "96M",
    "vcpus": 1,
    "cpu": None,
    "machine": "pc",
    "kernel": "/usr/local/share/personal-cluster-lab/vmlinux",
    "initrd": "/usr/local/share/personal-cluster-lab/initramfs",
    "cmdline": "console=ttyS0 quiet",
    "serial_log": "/var/log/libvirt/qemu/g1-console.log",
    "graphics": "none",
    "guest_agent": True,
    "autostart": True,
    "disks": [DISK],
    "nics": [NIC],
    "apply": "live_or_pending",
    "shutdown_timeout": 120,
    "force_stop": False,
    "delete_disks": [],
}
NETWORKS = {"vlans": frozenset({"blue", "green", "trunk"}), "br0": frozenset[str]()}


@pytest.fixture(params=RELEASES)
def xml(request: pytest.FixtureRequest) -> str:
    return (RECORDED / str(request.param) / "g1.xml").read_text()


def node(xml: str | None, *, live: str | None = None, size: int | None = 16 << 20) -> Node:
    domains = {}
    if xml is not None:
        state = "running" if live else "shutdown"
        domains["g1"] = Domain("g1", guest_uuid("lab", "g1"), state, True, xml, live)
    return Node(domains, {"gv0": Pool("/srv/gv0/images", True)}, NETWORKS, {IMAGE: size})


def plan(state: Node, *items: dict[str, Any], elsewhere: dict[str, str] | None = None) -> Plan[Node]:
    return Domains(items, "lab", elsewhere or {}, "test:///").plan(state)


def sentences(planned: Plan[Any]) -> list[str]:
    return [step.sentence for step in planned.steps]


def test_names_are_the_same_on_every_node() -> None:
    identity = guest_uuid("lab", "g1")
    assert identity == guest_uuid("lab", "g1") != guest_uuid("home", "g1")
    macs = {nic_mac(identity, number) for number in range(4)}
    assert len(macs) == 4 and all(mac.startswith("52:54:00:") and len(mac) == 17 for mac in macs)


@pytest.mark.parametrize(("text", "size"), [("96M", 96 << 20), ("2G", 2 << 30), ("4096", 4096), ("1 GiB", 1 << 30)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(show_size(size)) == size


@pytest.mark.parametrize("text", ["", "M", "-1G", "0", "1.5G", "1X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ClusterError, match="is not a size"):
        parse_size(text)


def test_what_libvirt_made_of_a_declaration_satisfies_it(xml: str) -> None:
    planned = plan(node(xml), G1)
    assert sentences(planned) == [] and planned.refusals == []
    assert sentences(plan(node(xml, live=xml), {**G1, "state": "running"})) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"memory": "128M"}, "memory 128 MiB"),
        ({"vcpus": 2}, "2 vCPU"),
        ({"cpu": "host-model"}, "CPU host-model"),
        ({"machine": "q35"}, "machine q35"),
        ({"cmdline": "console=ttyS0"}, "cmdline console=ttyS0"),
        ({"disks": [{**DISK, "cache": "writeback"}]}, "vda with cache=writeback, error_policy=stop"),
        ({"graphics": "vnc"}, "vnc on 127.0.0.1"),
    ],
)
def test_what_needs_a_restart_is_defined_and_reported_as_pending(
    xml: str, change: dict[str, Any], sentence: str
) -> None:
    wanted = {**G1, **change}
    planned = plan(node(xml, live=xml), wanted)
    assert sentences(planned) == [f"redefine guest g1: {sentence}"]
    host = Domains([wanted], "lab", {}, "test:///")
    assert host.view(planned.predicted)["pending"] == {"g1": [sentence]}
    assert sentences(plan(planned.predicted, wanted)) == []
    refused = plan(node(xml, live=xml), {**wanted, "apply": "live"})
    assert sentence in refused.refusals[0]


def test_a_nic_changes_its_vlan_live_and_a_disk_is_plugged_in(xml: str) -> None:
    wanted = {**G1, "nics": [{**NIC, "vlan": "green"}], "disks": [DISK, {**DISK, "name": "data.img"}]}
    planned = plan(node(xml, live=xml), wanted)
    assert [sentence.split(":")[0] for sentence in sentences(planned)] == [
        "create image data.img in pool gv0, 16 MiB",
        "redefine guest g1",
        "plug into running guest g1",
        "change in running guest g1",
    ]
    assert Domains([wanted], "lab", {}, "test:///").view(planned.predicted)["pending"] == {}
    assert sentences(plan(planned.predicted, wanted)) == []
    later = plan(node(xml, live=xml), {**wanted, "apply": "next_boot"})
    assert len(sentences(later)) == 2


def test_a_running_guest_on_open_vswitch_satisfies_its_declaration() -> None:
    # libvirt shows the live card as type 'bridge', with the VLAN and the port that the network gave it.
    live, inactive = ((RECORDED / "trixie" / f"g1-{name}.xml").read_text() for name in ("live", "live-inactive"))
    cmdline = ET.fromstring(inactive).findtext("os/cmdline")
    wanted = {**G1, "state": "running", "cmdline": cmdline}
    assert sentences(plan(node(inactive, live=live), wanted)) == []
    moved = plan(node(inactive, live=live), {**wanted, "nics": [{**NIC, "vlan": "green"}]})
    assert len(sentences(moved)) == 2
    card = ET.fromstring(moved.predicted.domains["g1"].live or "").find("devices/interface")
    assert card is not None and card.find("vlan") is None and card.find("virtualport") is None


def test_patching_keeps_what_others_added(xml: str) -> None:
    root = ET.fromstring(xml)
    devices = root.find("devices")
    assert devices is not None
    ET.SubElement(devices, "watchdog", model="i6300esb", action="reset")
    planned = plan(node(ET.tostring(root, encoding="unicode")), {**G1, "memory": "128M"})
    assert "i6300esb" in planned.predicted.domains["g1"].inactive


def test_a_new_guest_is_predicted_as_it_will_be(xml: str) -> None:
    planned = plan(node(None, size=None), {**G1, "state": "running"})
    assert sentences(planned) == [
        "create image g1-vda.img in pool gv0, 16 MiB",
        "define guest g1",
        "start guest g1 with the node",
        "start guest g1",
    ]
    host = Domains([{**G1, "state": "running"}], "lab", {}, "test:///")
    real = node(xml, live=xml)
    assert host.view(planned.predicted) == host.view(real)


@pytest.mark.parametrize(
    ("declared", "mode"),
    [({"domain_type": "kvm"}, "host-model"), ({"domain_type": "kvm", "cpu": "EPYC"}, "custom"), ({}, None)],
)
def test_a_new_guest_under_kvm_sees_what_its_node_can(declared: dict[str, Any], mode: str | None) -> None:
    guest = guest_from({**G1, **declared}, "lab", {"gv0": "/srv/gv0/images"})
    root = blank_domain(guest)
    patch(root, guest)
    cpu = root.find("cpu")
    assert (None if cpu is None else cpu.get("mode")) == mode


def test_a_fresh_node_is_planned_from_nothing() -> None:
    host = Domains([G1], "lab", {}, "test:///")
    planned = host.plan(host.blank())
    assert planned.refusals == [] and planned.warnings == [] and len(planned.steps) == 3


@pytest.mark.parametrize(
    ("change", "state", "message"),
    [
        ({"disks": [{**DISK, "size": "8M"}]}, {}, "never shrunk"),
        ({"disks": [DISK, {**DISK, "name": "data.img", "size": None}]}, {}, "does not exist; give its size"),
        ({}, {"size": None}, f"the image of its disk vda, {IMAGE}, is not there"),
        ({"state": "absent", "delete_disks": ["/etc/passwd"]}, {"size": None}, "is none of its disks"),
        ({"uuid": "00000000-0000-4000-8000-000000000001"}, {}, "declare uuid"),
        ({"delete_disks": [IMAGE]}, {}, "state is not absent"),
        ({"state": "absent", "delete_disks": ["/etc/passwd"]}, {}, "is none of its disks"),
        ({"name": "g4", "uuid": guest_uuid("lab", "g1")}, {}, "guest g1 already has the UUID"),
        ({"name": "g4", "disks": [{**DISK, "name": "g1-vda.img"}]}, {}, f"disk {IMAGE} belongs to guest g1"),
        ({"name": "g4", "memory": None, "disks": []}, {}, "memory and vcpus must be given"),
    ],
)
def test_refusals(xml: str, change: dict[str, Any], state: dict[str, Any], message: str) -> None:
    planned = plan(node(xml, **state), {**G1, **change})
    assert any(message in refusal for refusal in planned.refusals), planned.refusals
    assert planned.steps == []


def test_a_guest_of_another_node_is_refused() -> None:
    assert "is on node2" in plan(node(None), G1, elsewhere={"g1": "node2"}).refusals[0]


def test_a_disk_of_two_guests_is_refused() -> None:
    planned = plan(node(None), G1, {**G1, "name": "g4", "disks": [{**DISK, "name": "g1-vda.img"}]})
    assert any("for guest g1 and for guest g4" in refusal for refusal in planned.refusals)


def test_nics_must_not_end_on_the_trunk_by_mistake() -> None:
    def problems(**nic: Any) -> list[str]:
        item = {**G1, "nics": [{**NIC, **nic}]}
        return nic_problems(guest_from(item, "lab", {}), NETWORKS)

    assert problems() == problems(vlan="trunk") == problems(network="br0", vlan=None) == []
    assert "has no VLAN red" in problems(vlan="red")[0]
    assert "name one of" in problems(vlan=None)[0]
    assert "has no network wan0" in problems(network="wan0")[0]


@pytest.mark.parametrize("disk", [{"name": "g1-vda2.img"}, {"pool": "bmv0"}, {"target": "vda", "path": "/srv/x.img"}])
@pytest.mark.parametrize("live", [False, True])
def test_a_disk_of_a_guest_is_never_replaced_by_a_blank_one(xml: str, disk: dict[str, Any], live: bool) -> None:
    # Another name or pool, or the second disk of a list of which the first was removed: it is vda now.
    wanted = {**G1, "state": "running", "disks": [{**DISK, **disk}]}
    if "path" in disk:
        wanted["disks"][0].update(pool=None)
    state = node(xml, live=xml if live else None)
    state = replace(state, pools={**state.pools, "bmv0": Pool("/srv/bmv0/images", True)})
    planned = plan(state, wanted)
    assert planned.steps == [] and len(planned.refusals) == 1
    assert f"its disk vda is {IMAGE}; move that image" in planned.refusals[0]
    # Somebody moved it: the guest follows.
    path = guest_from(wanted, "lab", {name: pool.path for name, pool in state.pools.items()}).disks[0].path
    moved = plan(replace(state, files={path: 16 << 20}), wanted)
    assert moved.refusals == [] and f"disk vda from {path}" in sentences(moved)[0]


def test_a_guest_is_not_set_back_to_the_image_below_its_snapshot(xml: str) -> None:
    overlay = IMAGE.replace(".img", ".snap1")
    state = node(xml.replace(IMAGE, overlay))
    planned = plan(replace(state, files={IMAGE: 16 << 20, overlay: 4 << 20}), G1)
    assert planned.steps == [] and len(planned.refusals) == 1
    assert f"its disk vda is {overlay}" in planned.refusals[0] and "blockcommit g1 vda" in planned.refusals[0]
    # Without the other one there is nothing to lose; that its storage does not answer does not make it gone.
    gone = replace(state, files={IMAGE: 16 << 20, overlay: None})
    assert plan(gone, G1).refusals == []
    planned = plan(replace(gone, unseen=frozenset({overlay})), G1)
    assert planned.steps == [] and len(planned.refusals) == 1
    assert f"its disk vda is {overlay}, declared is {IMAGE}, and the first cannot be looked at" in planned.refusals[0]


def test_a_disc_is_changed_whether_the_one_before_is_there_or_not(xml: str) -> None:
    before, after = (f"/srv/gv0/iso/{name}.iso" for name in ("before", "after"))
    disc = {**DISK, "device": "cdrom", "bus": "sata", "size": None, "pool": None, "target": "sda"}
    state = replace(node(xml), files={IMAGE: 16 << 20, before: 1 << 20, after: 1 << 20})
    state = plan(state, {**G1, "disks": [DISK, {**disc, "path": before}]}).predicted
    for unseen in ([], [before]):
        planned = plan(replace(state, unseen=frozenset(unseen)), {**G1, "disks": [DISK, {**disc, "path": after}]})
        assert planned.refusals == [] and sentences(planned) == [f"redefine guest g1: cdrom sda from {after}"]


def test_a_disk_that_is_no_file_is_not_replaced_either(xml: str) -> None:
    root = ET.fromstring(xml)
    disk = root.find("devices/disk[@device='disk']")
    assert disk is not None
    disk.set("type", "block")
    source = disk.find("source")
    assert source is not None
    source.attrib.clear()
    source.set("dev", "/dev/sdz")
    planned = plan(node(ET.tostring(root, encoding="unicode"), size=None), G1)
    assert planned.steps == [] and "its disk vda is not a file" in planned.refusals[0]
    # After a copy onto a device the old image is still there, and can be smaller than declared.
    planned = plan(node(ET.tostring(root, encoding="unicode"), size=8 << 20), G1)
    assert planned.steps == [] and len(planned.refusals) == 1
    assert f"its disk vda is not a file, declared is {IMAGE}" in planned.refusals[0]


def test_an_image_is_not_put_into_a_guest_twice(xml: str) -> None:
    two = {**G1, "disks": [DISK, {**DISK, "name": "data.img"}]}
    both = plan(node(xml), two).predicted
    # The first was taken off the list: what was vdb would be vda, and still vdb.
    planned = plan(both, {**G1, "disks": [{**DISK, "name": "data.img"}]})
    assert planned.steps == [] and "data.img is its disk vdb already; give it target: vdb" in planned.refusals[0]
    assert plan(both, {**G1, "disks": [{**DISK, "name": "data.img", "target": "vdb"}]}).refusals == []
    assert plan(both, two).refusals == []


def test_a_run_killed_before_the_definition_goes_on() -> None:
    planned = plan(node(None), G1)
    assert planned.refusals == [] and sentences(planned) == ["define guest g1", "start guest g1 with the node"]


@pytest.mark.parametrize(("found", "declared"), [("qcow2", "raw"), ("raw", "qcow2")])
def test_the_definition_says_which_format_an_image_has(xml: str, found: str, declared: str) -> None:
    root = ET.fromstring(xml)
    for driver in root.iterfind("devices/disk/driver"):
        driver.set("type", found)
    state = node(ET.tostring(root, encoding="unicode"), size=3 << 20)
    planned = plan(state, {**G1, "disks": [{**DISK, "format": declared}]})
    assert planned.steps == [] and len(planned.refusals) == 1
    assert f"{IMAGE} is {found}, declared is {declared}; declare format: {found}" in planned.refusals[0]
    # The first bytes of a raw image are its guest's to write: they change nothing.
    state = replace(state, qcow2=frozenset({IMAGE}))
    assert plan(state, {**G1, "disks": [{**DISK, "format": declared}]}).refusals == planned.refusals
    assert plan(state, {**G1, "disks": [{**DISK, "format": found, "size": None}]}).refusals == []


@pytest.mark.parametrize(("found", "declared"), [("qcow2", "raw"), ("raw", "qcow2")])
def test_a_new_disk_begins_with_its_format(xml: str, found: str, declared: str) -> None:
    path = "/srv/gv0/images/new.img"
    qcow2 = frozenset({path} if found == "qcow2" else set[str]())
    for state in (node(None), node(xml)):
        state = replace(state, files={path: 3 << 20}, qcow2=qcow2)
        planned = plan(state, {**G1, "disks": [{**DISK, "name": "new.img", "format": declared, "size": None}]})
        assert planned.steps == [] and f"{path} is {found}, declared is {declared}" in planned.refusals[0]
        right = plan(state, {**G1, "disks": [{**DISK, "name": "new.img", "format": found, "size": None}]})
        assert right.refusals == [] and right.steps


def test_images_are_deleted_while_the_definition_still_names_them(xml: str) -> None:
    gone = {**G1, "state": "absent", "delete_disks": [IMAGE]}
    delete, undefine = f"delete the disk {IMAGE} of guest g1", "undefine guest g1"
    assert sentences(plan(node(xml, live=xml), gone)) == ["shut down guest g1", delete, undefine]
    # Killed after each step, the next run finds what is left to do.
    assert sentences(plan(node(xml), gone)) == [delete, undefine]
    assert sentences(plan(node(xml, size=None), gone)) == [undefine]
    assert sentences(plan(node(None, size=None), gone)) == []


def test_files_of_no_guest_are_not_deleted() -> None:
    # What is at the path of a guest that is gone may be another's by now, or never was its disk.
    planned = plan(node(None), {**G1, "state": "absent", "delete_disks": [IMAGE]})
    assert planned.steps == [] and planned.refusals == []
    assert planned.warnings == [f"guest g1 is not defined on this node, so {IMAGE} is not deleted; delete it by hand"]


def test_an_image_grows_with_its_declaration(xml: str) -> None:
    planned = plan(node(xml), {**G1, "disks": [{**DISK, "size": "32M"}]})
    assert sentences(planned) == [f"grow {IMAGE} from 16 MiB to 32 MiB"]
    assert planned.predicted.files[IMAGE] == 32 << 20


# --- networks and pools -------------------------------------------------------------------------

VLANS = {
    "name": "vlans",
    "bridge": "vlans",
    "portgroups": [{"name": "blue", "tag": 101}, {"name": "trunk", "tag": None}],
}


@pytest.mark.parametrize("release", RELEASES)
def test_networks_are_compared_by_what_is_declared(release: str) -> None:
    text = (RECORDED / release / "net-vlans.xml").read_text()
    kept = Host({"vlans": Kept(text, True, True)}, {})

    def planned(item: dict[str, Any]) -> list[str]:
        return sentences(Hosting([item], [], "lab", "test:///").plan(kept))

    assert planned(VLANS) == []
    assert planned({**VLANS, "portgroups": [{"name": "blue", "tag": 103}]}) == ["set VLAN blue of network vlans"]
    assert planned({**VLANS, "portgroups": [{"name": "red", "tag": 104}]}) == ["set VLAN red of network vlans"]
    assert planned({**VLANS, "bridge": "br1"})[0].startswith("redefine network vlans on bridge br1")


def test_a_pool_is_not_moved() -> None:
    pool = {"name": "gv0", "path": "/srv/gv0/images", "mount": "/srv/gv0"}
    text = pool_xml({**pool, "path": "/elsewhere"}, "lab")
    host = Hosting([], [pool], "lab", "test:///")
    planned = host.plan(Host({}, {"gv0": Kept(text, True, True)}))
    assert planned.steps == [] and "pool gv0 is at /elsewhere" in planned.refusals[0]


# --- migration ----------------------------------------------------------------------------------


def journey(xml: str, name: str = "g1") -> Journey:
    return Journey(Domain(name, guest_uuid("lab", name), "running", True, xml, xml), None, frozenset({"vlans"}))


def migration(*trips: Trip) -> Migration:
    return Migration(trips or [Trip("g1", "node2", "10.10.0.12")], ["/srv/gv0"], 9, "x")


def test_migration_is_planned_and_refused(xml: str) -> None:
    one, state = migration(), journey(xml)

    def refusal(of: Journey) -> str:
        return one.plan({"g1": of}).refusals[0]

    planned = one.plan({"g1": state})
    assert sentences(planned) == ["migrate guest g1 live to node2 (10.10.0.12)"]
    assert one.plan(planned.predicted).steps == []
    assert state.here is not None
    assert "start it first" in refusal(replace(state, here=replace(state.here, state="shutdown", live=None)))
    assert "also defined on node2" in refusal(replace(state, there=state.here))
    assert "network vlans is not active" in refusal(replace(state, networks=frozenset()))
    local = xml.replace("/srv/gv0/images", "/srv/bmv0/images")
    assert "not on shared storage" in refusal(replace(state, here=replace(state.here, live=local)))
    assert "no guest g1" in refusal(Journey(None, None))


class Library(ModuleType):
    """What migration takes of the library of libvirt, which is Debian's, and no part of these tests' environment."""

    class libvirtError(Exception):
        """Its exception."""

    def __getattr__(self, name: str) -> int:
        return len(name)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", Library("libvirt"))


class Traveller:
    """A guest that migrates as long as ``seconds``, until it is aborted; a node where it has arrived."""

    def __init__(self, seconds: float = 0, marks: Sequence[bool] = ()) -> None:
        self._aborted, self._seconds = threading.Event(), seconds
        self.marks, self._answers = list[int](), list(marks)

    def lookupByName(self, _name: str) -> Traveller:
        return self

    def abortJob(self) -> None:
        self._aborted.set()

    def migrateToURI3(self, *_: Any) -> None:
        if self._aborted.wait(self._seconds) or self._seconds < 0:
            raise Library.libvirtError("operation aborted: migration out job: canceled by client")

    def setAutostart(self, mark: int) -> None:
        if not self._answers.pop(0):
            raise Library.libvirtError("End of file while reading data")
        self.marks.append(mark)


def test_a_daemon_that_hangs_is_not_waited_for_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    library, over = Library("libvirt"), threading.Event()
    monkeypatch.setitem(sys.modules, "libvirt", library)
    monkeypatch.setattr(library, "registerErrorHandler", lambda *_: None, raising=False)
    monkeypatch.setattr(library, "open", lambda _uri: over.wait(20), raising=False)
    monkeypatch.setattr(connection, "ANSWER_SECONDS", 0.05)
    with pytest.raises(ClusterError, match="libvirt says nothing at qemu:///system for 0 s; see: systemctl status"):
        connection.connect("qemu:///system")
    over.set()
    assert connection.connect("qemu:///system") is True

    def closed(_uri: str) -> None:
        raise Library.libvirtError("no")

    monkeypatch.setattr(library, "open", closed)
    with pytest.raises(ClusterError, match=r"libvirt does not answer at test:///x \(no\)"):
        connection.connect("test:///x")


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (60, "guest g1 did not get to node2 within 0 s (allow it more: timeout): operation aborted"),
        (-1, "guest g1 did not get to node2: operation aborted"),
    ],
)
def test_a_guest_that_does_not_get_there_is_named(
    xml: str, monkeypatch: pytest.MonkeyPatch, seconds: float, says: str
) -> None:
    here = Traveller(seconds)
    monkeypatch.setattr(module_migration, "connect", lambda _uri: here)
    one = Migration([Trip("g1", "node2", "10.10.0.12")], ["/srv/gv0"], 0 if seconds > 0 else 9, "x")
    with pytest.raises(ClusterError, match=re.escape(says)):
        one.plan({"g1": journey(xml)}).steps[0].apply()


@pytest.mark.usefixtures("library")
def test_a_guest_that_has_arrived_is_marked_by_a_connection_that_is_new(
    xml: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    there = Traveller(marks=[True, False])

    def connect(uri: str) -> Traveller:
        opened.append(uri)
        return there if "10.10.0.12" in uri else Traveller()

    monkeypatch.setattr(module_migration, "connect", connect)
    (step,) = migration().plan({"g1": journey(xml)}).steps
    step.apply()
    assert there.marks == [1] and opened == ["x", "qemu+tls://10.10.0.12/system"]
    with pytest.raises(
        ClusterError, match="g1 runs on node2, and does not start with it yet .*: sudo virsh autostart g1"
    ):
        step.apply()
    state = journey(xml)
    assert state.here is not None
    (step,) = migration().plan({"g1": replace(state, here=replace(state.here, autostart=False))}).steps
    step.apply()
    assert there.marks == [1]


def test_guests_go_to_different_nodes_and_none_when_one_cannot(xml: str) -> None:
    two = migration(Trip("g1", "node2", "10.10.0.12"), Trip("g2", "node3", "10.10.0.13"))
    state = {"g1": journey(xml), "g2": journey(xml, "g2")}
    planned = two.plan(state)
    assert sentences(planned) == [
        "migrate guest g1 live to node2 (10.10.0.12)",
        "migrate guest g2 live to node3 (10.10.0.13)",
    ]
    arrived = {**state, "g1": planned.predicted["g1"]}
    assert sentences(two.plan(arrived)) == ["migrate guest g2 live to node3 (10.10.0.13)"]
    assert two.view(planned.predicted)["guests"]["g2"] == {"here": "absent", "there": "running"}
    assert two.plan({**state, "g2": Journey(None, None)}).refusals == ["there is no guest g2 on this node"]
