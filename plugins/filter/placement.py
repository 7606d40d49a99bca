# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide on which node each guest of the cluster belongs. Pure: data in, data out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible.errors import AnsibleFilterError

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


def place_guests(guests: Sequence[Guest], found: Found) -> dict[str, list[dict[str, Any]]]:
    """Return for each node the guests that it shall have: where a guest already is, else on its preferred node.

    :param guests: the guests of the cluster; ``node`` is the preferred one.
    :param found: for each node its domains by name, or nothing when the node was not asked.
    :raises AnsibleFilterError: a guest is on two nodes, is declared twice or prefers an unknown node.
    """
    problems: list[str] = []
    placed: dict[str, list[dict[str, Any]]] = {node: [] for node in found}
    names = [guest["name"] for guest in guests]
    problems += [f"guest {name} is declared twice" for name in sorted({it for it in names if names.count(it) > 1})]
    for guest in guests:
        home = _home(guest, found, problems)
        if home is not None:
            placed[home].append({key: value for key, value in guest.items() if key != "node"})
    if problems:
        raise AnsibleFilterError("; ".join(problems))
    return placed


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"place_guests": place_guests}
