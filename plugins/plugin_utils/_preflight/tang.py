# SPDX-License-Identifier: GPL-3.0-or-later
"""The tang hosts: that there are some, apart from the nodes, and that they answer. The policies that ask servers."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import Policy
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.tokens import server_name
from ansible_collections.personal.cluster.plugins.modules.luks_clevis_bind import POLICY_OPTIONS
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Finding,
    Host,
    Site,
    mappings,
    whole,
)

UNSET = (None, "")


def tang_declared(site: Site) -> Iterator[Finding]:
    """Tang hosts make up the policy of each node that declares none: not only nodes, and how many of them is said."""
    made = [host for host in site.nodes if not host.declared.get("policy")]
    servers = site.settings["tang"]
    peers = [name for name in servers if name in site.settings["nodes"]]
    if made and not servers:
        yield Finding(
            CLUSTER,
            "group tang",
            "it has no hosts, and no disk would unlock by itself",
            "put a host that is no node into the inventory group `tang`, or declare encryption_policy for all nodes",
        )
    elif made and peers == servers:
        yield Finding(
            CLUSTER,
            "group tang",
            "all its hosts are in group nodes, too: whoever carries the nodes away would have all keys of their disks",
            "put a host that is no node into it",
        )
    elif peers and any(host.declared.get("tang_threshold") in UNSET for host in made):
        yield Finding(
            CLUSTER,
            "encryption_tang_threshold",
            f"it is not set, and group tang has nodes ({', '.join(peers)})",
            "say how many servers must answer: with 1, two nodes that are carried away together unlock each other",
        )
    else:
        yield from _thresholds(made, servers)


def _thresholds(hosts: Iterable[Host], servers: Collection[str]) -> Iterator[Finding]:
    """A threshold can be met, and asks for one server at least; a node does not ask itself."""
    for host in hosts:
        declared, most = host.declared.get("tang_threshold"), len(set(servers) - {host.name})
        number = whole(declared)
        if declared not in UNSET and (number is None or not 1 <= number <= most):
            yield Finding(
                host.name,
                "encryption_tang_threshold",
                f"{declared!r} is no whole number from 1 to {most}, which is how many tang hosts it asks",
                "say how many of them must answer",
            )


def tang_answers(site: Site) -> Iterator[Finding]:
    """Tang answers every node; before it is set up for the first time, a host that can be logged in to is enough.

    A node whose policy has kept what a server advertised can do without its answer.
    """
    looked = {host.address: host for host in site.tang}
    disks = [disk for host in site.nodes if host.node for disk in host.node["disks"].values()]
    bound = any((disk["luks"] or {}).get("clevis") for disk in disks)
    for server in site.settings["tang_servers"]:
        address, port = str(server).rsplit(":", 1)
        if whole(port) is None:
            continue
        host = looked.get(address)
        silent = host is not None and bool(host.node) and int(port) not in host.node["listening"]
        # A node that is new, or was installed anew, becomes a tang host when it is built.
        in_time = host in site.nodes and host is not None and not host.node.get("tang_keys", True)
        if silent and bound and not in_time:
            yield Finding(
                host.name if host else CLUSTER,
                "tang_port",
                f"nothing listens on port {port}, but disks are bound to tang",
                "see `systemctl status tangd.socket` there; without it no node unlocks its disks at the next boot. "
                "If the host is new in group tang, playbooks/encryption.yml sets it up",
            )
        first_build = not bound and (silent or (host is None and len(site.tang) < len(site.settings["tang"])))
        if not silent and not first_build:
            yield from _tang_out_of_reach(site, str(server))


def _tang_out_of_reach(site: Site, server: str) -> Iterator[Finding]:
    for node in site.nodes:
        policy, _faults = _policy(node)
        kept = dict(policy.kept) if policy else {}
        problem = node.node.get("tang_problems", {}).get(server)
        if problem and f"http://{server}" not in kept:
            yield Finding(
                node.name,
                "group tang",
                f"tang at {server} does not answer: {problem}",
                f"`curl http://{server}/adv` on the node must print JSON; see cable, firewall and tangd.socket",
            )


def policies_valid(site: Site) -> Iterator[Finding]:
    """What is declared as the whole policy of a node can be bound to, and does not ask the node itself."""
    for host in site.nodes:
        policy, faults = _policy(host)
        if policy and not faults:
            yield from _alone(policy, host)
        for fault in faults:
            remedy = "`ansible-doc personal.cluster.luks_clevis_bind` shows what a policy is made of"
            yield Finding(host.name, "encryption_policy", fault, remedy)
        own = [url for url, _thp in (policy.servers if policy else ()) if _leads_to(url, host)]
        if own:
            yield Finding(
                host.name,
                "encryption_policy",
                f"it asks the node itself, {', '.join(own)}: whoever carries the node away would unlock its disks",
                "leave that server out of this node's policy; in encryption_tang_servers no node finds itself",
            )
        elif policy and not faults and not _asks_outside(policy, site):
            yield Finding(
                host.name,
                "encryption_policy",
                "it asks nodes alone: whoever carries the nodes away would have all keys of their disks",
                "let it ask a server that is no node, or the TPM, too",
            )


def _alone(policy: Policy, host: Host) -> Iterator[Finding]:
    for source in policy.alone:
        yield Finding(
            host.name,
            "encryption_policy",
            f"{source} unlocks alone, though the threshold is {policy.threshold}: it is named at several depths",
            "name it at one depth, or say threshold: 1",
        )


def _asks_outside(policy: Policy, site: Site) -> bool:
    servers = [url for url, _thp in policy.servers]
    return policy.asks_tpm or not all(any(_leads_to(url, host) for host in site.nodes) for url in servers)


def _policy(host: Host) -> tuple[Policy | None, list[str]]:
    """Return what is declared as the whole policy of a node, None without one, and what is wrong with it."""
    declared = host.declared.get("policy")
    if not declared:
        return None, []
    if not isinstance(declared, Mapping):
        return None, [f"{declared!r} is no mapping"]
    validated = ArgumentSpecValidator(POLICY_OPTIONS).validate(declared)
    if validated.error_messages:
        return None, [f"it is not understood: {message}" for message in validated.error_messages]
    policy = Policy.of(validated.validated_parameters)
    return policy, policy.faults()


def _leads_to(url: str, host: Host) -> bool:
    """Say whether a host that asks ``url`` asks itself: under an address or a name that it has, or as localhost."""
    name = server_name(url)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        names = ("localhost", host.name, str(host.node.get("hostname", "")))
        return name.split(".")[0] in {own.lower().split(".")[0] for own in names if own}
    return address.is_loopback or address.is_unspecified or str(address) in _addresses(host)


def _addresses(host: Host) -> set[str]:
    """Return the addresses that the host shall have, and those that were found on it."""
    vlans = [str(vlan.get("address") or "") for _place, vlan in mappings("", host.declared.get("vlans"))]
    found = [address for about in host.node.get("interfaces", {}).values() for address in about["addresses"]]
    return {host.address, *(address.split("/")[0] for address in vlans), *found}


SITE_CHECKS: tuple[Check, ...] = (tang_declared, tang_answers, policies_valid)
