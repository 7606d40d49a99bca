# SPDX-License-Identifier: GPL-3.0-or-later
"""The declared guests of one node (a resource of the engine)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.actions import Actions
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.connection import connect
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import Guest, guest_from
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.patching import same_machine
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.planning import (
    GuestPlan,
    live_changes,
    refuse_double,
)
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.reading import (
    Domain,
    Node,
    begins_as_qcow2,
    disk_files,
    read_domains,
    read_networks,
    read_pools,
    summary,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan


class Domains:
    """The declared guests of one node; see the module virt_domain for the items."""

    def __init__(self, items: Sequence[Mapping[str, Any]], cluster: str, elsewhere: Mapping[str, str], uri: str):
        self._items = items
        self._cluster = cluster
        self._elsewhere = elsewhere
        self._uri = uri
        self._connection: Any = None

    def read(self) -> Node:
        """Read all domains, pools and networks, and look at the files of the declared guests."""
        if self._connection is None:
            self._connection = connect(self._uri)
        pools = read_pools(self._connection)
        node = Node(
            domains=read_domains(self._connection),
            pools=pools,
            networks=read_networks(self._connection),
        )
        guests = self._guests(node)
        files, unseen = _sizes(path for guest in guests for path in _files(guest, node.domains.get(guest.name)))
        return replace(
            node,
            files=files,
            unseen=unseen,
            qcow2=frozenset(disk.path for guest in guests for disk in guest.disks if begins_as_qcow2(disk.path)),
        )

    def blank(self) -> Node:
        """Return a node without domains, pools and networks."""
        return Node(fresh=True)

    def _guests(self, node: Node) -> list[Guest]:
        folders = {name: pool.path for name, pool in node.pools.items()}
        return [guest_from(item, self._cluster, folders) for item in self._items]

    def plan(self, state: Node) -> Plan[Node]:
        """Plan each guest on its own."""
        domains, files = dict(state.domains), dict(state.files)
        plan: Plan[Node] = Plan(state)
        guests = self._guests(state)
        actions = Actions(self._connection)
        refuse_double(guests, plan.refusals)
        for guest in guests:
            GuestPlan(actions, plan, guest, state, domains, files).make(self._elsewhere.get(guest.name))
        plan.predicted = replace(state, domains=domains, files=files)
        return plan

    def view(self, state: Node) -> dict[str, Any]:
        """Return the declared guests, and what of them waits for a restart."""
        shown: dict[str, Any] = {}
        pending: dict[str, list[str]] = {}
        for guest in self._guests(state):
            domain = state.domains.get(guest.name)
            if domain is None:
                continue
            shown[guest.name] = summary(domain)
            if guest.machine and same_machine(str(shown[guest.name]["machine"]), guest.machine):
                shown[guest.name]["machine"] = guest.machine
            waiting = [change.sentence for change in live_changes(domain, guest)[1]]
            if waiting and guest.state != "absent":
                pending[guest.name] = waiting
        return {"domains": shown, "pending": pending}


def _sizes(paths: Iterable[str]) -> tuple[dict[str, Optional[int]], frozenset[str]]:
    """Return the size of each file, nothing where there is none, and the files that cannot be looked at."""
    files: dict[str, Optional[int]] = {}
    unseen = set()
    for path in paths:
        files[path] = None
        try:
            files[path] = os.stat(path).st_size
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            unseen.add(path)
    return files, frozenset(unseen)


def _files(guest: Guest, domain: Optional[Domain]) -> list[str]:
    named = (guest.kernel, guest.initrd, *(disk.path for disk in guest.disks), *guest.delete_disks)
    return [path for path in (*named, *(disk_files(domain.inactive) if domain else [])) if path]
