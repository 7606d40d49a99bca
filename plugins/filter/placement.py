# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide on which node each guest of the cluster belongs, or goes. Pure: data in, data out."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError
from ansible_collections.personal.cluster.plugins.module_utils._backends.libvirt.declared import disk_place

Guest = Mapping[str, Any]
Found = Mapping[str, Optional[Mapping[str, Any]]]


def _home(guest: Guest, found: Found, problems: list[str]) -> Optional[str]:
    """Return the node that shall have ``guest``; nothing when this cannot be known, or no node needs it."""
    name, preferred = guest["name"], guest.get("node")
    holders = [node for node, domains in found.items() if domains and name in domains]
    if len(holders) == 1:
        return holders[0]
    if holders:
        states = ", ".join(f"{node} ({(found[node] or {})[name]['state']})" for node in holders)
        problems.append(
            f"guest {name} is defined on {states}; keep the one that is right, "
            f"and run on each other node: virsh undefine --nvram {name}"
        )
        return None
    if guest.get("state") == "absent" and not guest.get("delete_disks"):
        return None
    if preferred not in found:
        problems.append(f"guest {name}: its node {preferred} is none of {', '.join(found)}")
        return None
    # A node that was not asked may have the guest: then it is left alone.
    return preferred if all(domains is not None for domains in found.values()) else None


def _declared_images(guest: Guest, pools: Mapping[str, str]) -> list[str]:
    """Return the images that a guest shall have, or that are deleted with it."""
    if guest.get("state") == "absent":
        return list(guest.get("delete_disks") or ())
    disks = enumerate(guest.get("disks") or ())
    return [
        disk_place(guest["name"], number, disk, pools)[1]
        for number, disk in disks
        if disk.get("device", "disk") == "disk"
    ]


def _found_images(found: Found) -> Iterator[tuple[str, str, str]]:
    """Return node, guest and image for each image that a guest has now."""
    for node, domains in found.items():
        for name, domain in (domains or {}).items():
            for disk in domain.get("disks", {}).values():
                if disk["file"] and disk["device"] == "disk":
                    yield node, name, disk["file"]


def _is_local(path: str, local: Sequence[str]) -> bool:
    """Return whether each node has its own file at ``path``."""
    return posixpath.normpath(path).startswith(tuple(folder.rstrip("/") + "/" for folder in local))


def _refuse_unseen(guest: Guest, found: Found, local: Sequence[str], problems: list[str]) -> None:
    """Add a problem for each image to delete that a guest of a node which was not asked may use."""
    unseen = ", ".join(node for node, domains in found.items() if domains is None)
    problems += [
        f"guest {guest['name']}: {path} is not deleted while {unseen} was not asked whether a guest there uses it; "
        "run without --limit, with all nodes on"
        for path in (guest.get("delete_disks") or ())
        if unseen and not _is_local(path, local)
    ]


def _refuse_double(
    declared: Sequence[tuple[str, str, str]], found: Found, local: Sequence[str], problems: list[str]
) -> None:
    """Add a problem for each declared image of two guests; ``declared`` has node, guest and image of each."""

    def file(node: str, path: str) -> tuple[str, str]:
        return node if _is_local(path, local) else "", posixpath.normpath(path)

    guests: dict[tuple[str, str], set[str]] = {file(node, path): set() for node, _, path in declared}
    for node, name, path in (*declared, *_found_images(found)):
        guests.get(file(node, path), set()).add(name)
    problems += [
        f"{path} is an image of the guests {', '.join(sorted(names))}; give each its own "
        "(if every node has its own file there, name the directory in hypervisor_local_dirs)"
        for (_, path), names in guests.items()
        if len(names) > 1
    ]


def place_guests(
    guests: Sequence[Guest], found: Found, pools: Sequence[Mapping[str, str]] = (), local: Sequence[str] = ()
) -> dict[str, list[dict[str, Any]]]:
    """Return for each node the guests that it shall have: where a guest already is, else on its preferred node.

    :param guests: the guests of the cluster; ``node`` is the preferred one.
    :param found: for each node its domains by name, or nothing when the node was not asked.
    :param pools: the storage pools with ``name`` and ``path``.
    :param local: directories of which each node has its own; the same path elsewhere is the same file on all nodes.
    :raises AnsibleFilterError: a guest is on two nodes, is declared twice or prefers an unknown node; an image is two
        guests', or shall be deleted while a node was not asked.
    """
    problems: list[str] = []
    placed: dict[str, list[dict[str, Any]]] = {node: [] for node in found}
    names = [guest["name"] for guest in guests]
    problems += [f"guest {name} is declared twice" for name in sorted({it for it in names if names.count(it) > 1})]
    folders = {pool["name"]: pool["path"] for pool in pools}
    images: list[tuple[str, str, str]] = []
    for guest in guests:
        home = _home(guest, found, problems)
        where = home or guest.get("node") or ""
        images += [(where, guest["name"], path) for path in _declared_images(guest, folders)]
        if home is not None:
            _refuse_unseen(guest, found, local, problems)
            placed[home].append({key: value for key, value in guest.items() if key != "node"})
    _refuse_double(images, found, local, problems)
    if problems:
        raise AnsibleFilterError("; ".join(problems))
    return placed


def spread_guests(guests: Sequence[str], nodes: Sequence[str], addresses: Mapping[str, str]) -> list[dict[str, str]]:
    """Return guests shared out to nodes in turn, as the module virt_migrate takes them.

    :param addresses: by node its address in the storage network.
    """
    turns = [nodes[number % len(nodes)] for number in range(len(guests))]
    return [{"name": guest, "to": node, "address": addresses[node]} for guest, node in zip(guests, turns, strict=True)]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"place_guests": place_guests, "spread_guests": spread_guests}
