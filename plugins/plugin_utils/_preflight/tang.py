# SPDX-License-Identifier: GPL-3.0-or-later
"""The tang hosts: that there are some, apart from the nodes, and that they answer."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import CLUSTER, Check, Finding, Site


def tang_declared(site: Site) -> Iterator[Finding]:
    """There is a tang host: without one, disks are encrypted and bound to nothing."""
    if not site.settings["tang"]:
        yield Finding(
            CLUSTER,
            "group tang",
            "it has no hosts, and no disk would unlock by itself",
            "put a host that is no node into the inventory group `tang`",
        )
    for name in site.settings["tang"]:
        if name in site.settings["nodes"]:
            yield Finding(
                name,
                "group tang",
                "it is in group nodes, too: whoever carries it away would have keys for the disks",
                "take it out of one of the two groups; tang belongs on a host that is no node",
            )


def tang_answers(site: Site) -> Iterator[Finding]:
    """Tang answers every node; before it is set up for the first time, a host that can be logged in to is enough."""
    looked = {host.address: host for host in site.tang}
    disks = [disk for host in site.nodes if host.node for disk in host.node["disks"].values()]
    bound = any((disk["luks"] or {}).get("clevis") for disk in disks)
    for server in site.settings["tang_servers"]:
        address, port = str(server).rsplit(":", 1)
        host = looked.get(address)
        silent = host is not None and bool(host.node) and int(port) not in host.node["listening"]
        if silent and bound:
            yield Finding(
                host.name if host else CLUSTER,
                "tang_port",
                f"nothing listens on port {port}, but disks are bound to tang",
                "see `systemctl status tangd.socket` there; without it no node unlocks its disks at the next boot",
            )
        first_build = not bound and (silent or (host is None and len(site.tang) < len(site.settings["tang"])))
        if not silent and not first_build:
            yield from _tang_out_of_reach(site, str(server))


def _tang_out_of_reach(site: Site, server: str) -> Iterator[Finding]:
    for node in site.nodes:
        problem = node.node.get("tang_problems", {}).get(server)
        if problem:
            yield Finding(
                node.name,
                "group tang",
                f"tang at {server} does not answer: {problem}",
                f"`curl http://{server}/adv` on the node must print JSON; see cable, firewall and tangd.socket",
            )


SITE_CHECKS: tuple[Check, ...] = (tang_declared, tang_answers)
