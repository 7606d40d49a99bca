# SPDX-License-Identifier: GPL-3.0-or-later
"""Planning one guest: what speaks against it, its steps in order, and what they will have made."""

from __future__ import annotations

import copy
import os
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.actions import Actions, nic_problems
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import Disk, Guest
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.elements import attribute, child
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.names import show_size
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.patching import (
    Change,
    LiveChange,
    blank_domain,
    patch,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import (
    Attached,
    Domain,
    Node,
    attached,
    disk_files,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step


class GuestPlan:
    """Plans one guest into the plan of its node."""

    def __init__(
        self,
        actions: Actions,
        plan: Plan[Node],
        guest: Guest,
        state: Node,
        domains: dict[str, Domain],
        files: dict[str, Optional[int]],
    ):
        self.actions, self.plan, self.guest, self.state = actions, plan, guest, state
        self.domains, self.files = domains, files

    def make(self, elsewhere: Optional[str]) -> None:
        """Add refusals, or steps and their prediction.

        :param elsewhere: the other node that has the guest.
        """
        domain = self.domains.get(self.guest.name)
        refusals = [*self._identity_refusals(domain, elsewhere), *self._disk_refusals(domain)]
        if refusals:
            self.plan.refusals += refusals
        elif self.guest.state == "absent":
            self._remove(domain)
        else:
            self._images(domain)
            domain = self._define(domain)
            domain = self._live(domain)
            self.domains[self.guest.name] = self._run_state(self._autostart(domain))

    def _add(self, sentence: str, call: Any, *arguments: Any) -> None:
        self.plan.steps.append(Step(sentence, partial(call, *arguments)))

    def _identity_refusals(self, domain: Optional[Domain], elsewhere: Optional[str]) -> list[str]:
        guest = self.guest
        if elsewhere and guest.state != "absent":
            return [f"guest {guest.name} is on {elsewhere}; it must not be on two nodes"]
        refusals = []
        if domain is not None and domain.uuid != guest.uuid:
            refusals.append(
                f"guest {guest.name} exists with UUID {domain.uuid}, wanted is {guest.uuid}; "
                f"declare uuid: {domain.uuid} to adopt it, or undefine it"
            )
        same = [it.name for it in self.state.domains.values() if it.uuid == guest.uuid and it.name != guest.name]
        refusals += [f"guest {name} already has the UUID {guest.uuid} of guest {guest.name}" for name in same]
        if domain is None and guest.state != "absent" and not (guest.memory and guest.vcpus):
            refusals.append(f"guest {guest.name} does not exist yet: memory and vcpus must be given")
        return refusals

    def _disk_refusals(self, domain: Optional[Domain]) -> list[str]:
        guest, refusals = self.guest, []
        if guest.state == "absent":
            return self._delete_refusals(domain)
        for path in guest.delete_disks:
            refusals.append(f"guest {guest.name}: delete_disks names {path}, but state is not absent")
        has = {} if domain is None else attached(domain.inactive)
        for disk in guest.disks:
            size = self.files.get(disk.path)
            refusals += self._attached_twice(disk, has)
            if size is None and self._keeps(disk, has):
                refusals.append(self._vanished(disk, has[disk.target]))
                continue
            if size is not None and self._keeps(disk, has) and self._left_behind(disk, has[disk.target]):
                refusals.append(self._swapped(disk, has[disk.target]))
                continue
            if size is not None and (found := self._format(disk, has.get(disk.target))) != disk.format:
                refusals.append(
                    f"guest {guest.name}: {disk.path} is {found}, declared is {disk.format}; "
                    f"declare format: {found}, or give a converted image another name"
                )
                continue
            for other in self._users(disk.path) if disk.device == "disk" else []:
                refusals.append(f"guest {guest.name}: disk {disk.path} belongs to guest {other}")
            if size is None and disk.size is None and not self.state.fresh:
                refusals.append(f"guest {guest.name}: {disk.path} does not exist; give its size to create it")
            if size is None and disk.size and disk.format != "raw":
                refusals.append(f"guest {guest.name}: {disk.path} does not exist; only raw images are created here")
            if size and disk.size and disk.format == "raw" and size > disk.size:
                refusals.append(
                    f"guest {guest.name}: {disk.path} has {show_size(size)}, declared are {show_size(disk.size)}; "
                    "an image is never shrunk, declare its real size"
                )
        return refusals

    def _keeps(self, disk: Disk, has: Mapping[str, Attached]) -> bool:
        """Return whether the guest has this disk, so that no blank image may take its place."""
        # Where a pool that is not there yet will lie is not known: nothing can be said of its images.
        known = disk.pool is None or disk.pool in self.state.pools
        return known and disk.device == "disk" and disk.target in has and has[disk.target].device == "disk"

    def _vanished(self, disk: Disk, now: Attached) -> str:
        if now.path == disk.path:
            return (
                f"guest {self.guest.name}: the image of its disk {disk.target}, {disk.path}, is not there; "
                "mount its storage, or restore it: a blank one is never put in its place"
            )
        place = f"is {now.path}; move that image" if now.path else "is not a file; bring its content"
        return (
            f"guest {self.guest.name}: {disk.path} is not there, and its disk {disk.target} {place} there first, "
            "or declare the disk as it is; a new disk needs a target of its own"
        )

    def _left_behind(self, disk: Disk, now: Attached) -> bool:
        """Return whether the guest's present image would stay where it is, with what the guest wrote last."""
        if now.path is None:
            return True
        return now.path != disk.path and (self.files.get(now.path) is not None or now.path in self.state.unseen)

    def _swapped(self, disk: Disk, now: Attached) -> str:
        name, target = self.guest.name, disk.target
        if now.path is None:
            return (
                f"guest {name}: its disk {target} is not a file, declared is {disk.path}; when that has its content, "
                f"put it there by hand (virsh edit {name}); a new disk needs a target of its own"
            )
        seen = "both are there"
        if now.path in self.state.unseen:
            seen = "the first cannot be looked at, so make its storage answer"
        return (
            f"guest {name}: its disk {target} is {now.path}, declared is {disk.path}, and {seen}; after a snapshot, "
            f"merge it (virsh blockcommit {name} {target} --active --pivot), or declare the disk as it is; "
            "if the declared one is right, move the other away first"
        )

    def _format(self, disk: Disk, now: Optional[Attached]) -> str:
        """Return the format of an image that is there."""
        if now and now.path == disk.path and now.format:
            # Not from its bytes: the guest writes those, and could pass a raw disk off as qcow2 with a backing file.
            return now.format
        return "qcow2" if disk.path in self.state.qcow2 else "raw"

    def _attached_twice(self, disk: Disk, has: Mapping[str, Attached]) -> list[str]:
        declared = {it.target for it in self.guest.disks}
        return [
            f"guest {self.guest.name}: {disk.path} is its disk {target} already; give it target: {target}"
            for target, other in has.items()
            if other.path == disk.path and target not in declared and disk.device == "disk"
        ]

    def _delete_refusals(self, domain: Optional[Domain]) -> list[str]:
        refusals = []
        mine = {} if domain is None else _deletable(domain.inactive)
        for path in self.guest.delete_disks:
            if domain is not None and path not in mine:
                refusals.append(f"guest {self.guest.name}: {path} is none of its disks")
            for other in self._users(path):
                refusals.append(f"guest {self.guest.name}: {path} also belongs to guest {other}")
        return refusals

    def _users(self, path: str) -> list[str]:
        return [
            it.name
            for it in self.state.domains.values()
            if it.name != self.guest.name and path in disk_files(it.inactive)
        ]

    def _remove(self, domain: Optional[Domain]) -> None:
        guest = self.guest
        named = [path for path in guest.delete_disks if self.files.get(path) is not None]
        if domain is None:
            self.plan.warnings += [
                f"guest {guest.name} is not defined on this node, so {path} is not deleted; delete it by hand"
                for path in named
            ]
            return
        if domain.active:
            self._add(f"shut down guest {guest.name}", self.actions.stop, guest)
        # Images before the definition: it says whose they are, and brings the next run here if this one is killed.
        for path in named:
            self._add(f"delete the disk {path} of guest {guest.name}", os.unlink, path)
            self.files[path] = None
        self._add(f"undefine guest {guest.name}", self.actions.undefine, guest)
        del self.domains[guest.name]

    def _images(self, domain: Optional[Domain]) -> None:
        for disk in self.guest.disks:
            size, wanted = self.files.get(disk.path), disk.size
            if wanted is None or disk.device != "disk":
                continue
            if size is None:
                place = f"{os.path.basename(disk.path)} in pool {disk.pool}" if disk.pool else disk.path
                self._add(f"create image {place}, {show_size(wanted)}", self.actions.create_image, disk, wanted)
            elif size < wanted and disk.format == "raw":
                active = domain is not None and domain.active
                sentence = f"grow {disk.path} from {show_size(size)} to {show_size(wanted)}"
                self._add(sentence, self.actions.grow_image, self.guest, disk, wanted, active)
            self.files[disk.path] = max(size or 0, wanted)

    def _define(self, domain: Optional[Domain]) -> Domain:
        guest = self.guest
        root = blank_domain(guest) if domain is None else ET.fromstring(domain.inactive)
        changes = patch(root, guest)
        if domain is not None and not changes:
            return domain
        if not self.state.fresh and self.state.networks:
            self.plan.warnings += nic_problems(guest, self.state.networks)
        xml = ET.tostring(root, encoding="unicode")
        sentence = (
            f"define guest {guest.name}"
            if domain is None
            else f"redefine guest {guest.name}: {', '.join(change.sentence for change in changes)}"
        )
        self._add(sentence, self.actions.define, guest, xml)
        if domain is None:
            return Domain(guest.name, guest.uuid, "shutdown", False, xml)
        return replace(domain, inactive=xml)

    def _live(self, domain: Domain) -> Domain:
        guest = self.guest
        now, waiting = live_changes(domain, guest)
        if waiting and guest.apply == "live":
            rest = ", ".join(change.sentence for change in waiting)
            self.plan.refusals.append(f"guest {guest.name} runs and cannot take live: {rest}; use live_or_pending")
            return domain
        for change in now:
            verb = "plug into" if change.new else "change in"
            self._add(f"{verb} running guest {guest.name}: {change.sentence}", self.actions.change_live, guest, change)
        return replace(domain, live=_with_devices(domain.live, now)) if domain.live and now else domain

    def _autostart(self, domain: Domain) -> Domain:
        wanted = self.guest.autostart
        if wanted is None or wanted == domain.autostart:
            return domain
        verb = "start" if wanted else "do not start"
        self._add(f"{verb} guest {self.guest.name} with the node", self.actions.set_autostart, self.guest)
        return replace(domain, autostart=wanted)

    def _run_state(self, domain: Domain) -> Domain:
        guest, wanted = self.guest, self.guest.state
        if wanted == "defined" or wanted == domain.state:
            return domain
        if wanted == "shutdown":
            self._add(f"shut down guest {guest.name}", self.actions.stop, guest)
            return replace(domain, state=wanted, live=None)
        if not domain.active:
            how = " paused" if wanted == "paused" else ""
            self._add(f"start guest {guest.name}{how}", self.actions.start, guest)
            return replace(domain, state=wanted)
        if wanted == "paused":
            self._add(f"pause guest {guest.name}", self.actions.pause, guest)
            return replace(domain, state=wanted)
        anew = f"virsh destroy {guest.name} && virsh start {guest.name}"
        why = f", whose disk failed (if it fails again on storage that is well: {anew})" if domain.disk_failed else ""
        self._add(f"resume guest {guest.name}{why}", self.actions.resume, guest)
        return replace(domain, state=wanted)


def live_changes(domain: Domain, guest: Guest) -> tuple[list[LiveChange], list[Change]]:
    """Return what a running guest can take now, and what waits for its next boot."""
    if domain.live is None:
        return [], []
    root = ET.fromstring(domain.live)
    changes = patch(root, guest)
    now = [change for change in changes if isinstance(change, LiveChange) and guest.apply != "next_boot"]
    return now, [change for change in changes if change not in now]


def refuse_double(guests: Sequence[Guest], refusals: list[str]) -> None:
    """Add a refusal for each guest, and each image, that is declared twice."""
    names = [guest.name for guest in guests]
    refusals += [
        f"guest {name} is declared twice" for name in sorted({name for name in names if names.count(name) > 1})
    ]
    owner: dict[str, str] = {}
    for guest in guests:
        for disk in guest.disks:
            if disk.device == "disk" and owner.setdefault(disk.path, guest.name) != guest.name:
                refusals.append(f"{disk.path} is declared for guest {owner[disk.path]} and for guest {guest.name}")


def _with_devices(live: str, changes: Sequence[LiveChange]) -> str:
    """Return live XML with plugged devices added; a changed one is replaced where it stands."""
    root = ET.fromstring(live)
    devices = child(root, "devices")
    for change in changes:
        for old in list(devices):
            if _key(old) == _key(change.element) != (change.element.tag, None):
                devices.remove(old)
        devices.append(copy.deepcopy(change.element))
    return ET.tostring(root, encoding="unicode")


def _key(device: ET.Element) -> tuple[str, Optional[str]]:
    """Return what tells a disk or a NIC from others of its kind."""
    tags = {"disk": ("target", "dev"), "interface": ("mac", "address"), "channel": ("target", "name")}
    return (device.tag, attribute(device, *tags[device.tag])) if device.tag in tags else (device.tag, None)


def _deletable(xml: str) -> dict[str, str]:
    """Return the files of disks that may be deleted with their guest, with their target."""
    found = {}
    for disk in ET.fromstring(xml).iterfind("devices/disk"):
        path = attribute(disk, "source", "file")
        if (
            path
            and disk.get("device", "disk") == "disk"
            and disk.find("readonly") is None
            and disk.find("shareable") is None
        ):
            found[path] = attribute(disk, "target", "dev") or ""
    return found
