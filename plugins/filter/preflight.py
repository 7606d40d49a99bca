# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge what preflight found on all hosts: every finding names the host, the variable and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.personal.cluster.plugins.plugin_utils._preflight import (
    cluster,
    guests,
    hosts,
    names,
    network,
    storage,
    tang,
)
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Data,
    Finding,
    Host,
    HostCheck,
    Site,
)

SITE_CHECKS: tuple[Check, ...] = (
    *cluster.SITE_CHECKS,
    *names.SITE_CHECKS,
    *hosts.SITE_CHECKS,
    *network.SITE_CHECKS,
    *tang.SITE_CHECKS,
    *storage.SITE_CHECKS,
    *guests.SITE_CHECKS,
)
HOST_CHECKS: tuple[HostCheck, ...] = (*hosts.HOST_CHECKS, *network.HOST_CHECKS)
NODE_CHECKS: tuple[HostCheck, ...] = (*hosts.NODE_CHECKS, *network.NODE_CHECKS, *storage.NODE_CHECKS)


def _host(name: str, looked: Data) -> Host:
    return Host(
        name=name,
        declared=looked.get("declared") or {},
        node=looked.get("node") or {},
        clock=looked.get("clock_offset") or {},
        problem=str(looked.get("problem") or ""),
    )


def judge(looked: Mapping[str, Data], settings: Data) -> list[Finding]:
    """Return every finding on every host.

    :param looked: by inventory name the result of node_info. A host that was not looked at (``--limit``) is left out.
    :param settings: ``about`` (the hosts that count, all when empty), ``nodes`` and ``tang`` (names), ``cluster_name``,
        ``state_dir``, ``network``, ``gateway``, ``dns``, ``bridges``, ``vlans``, ``guests``, ``networks``,
        ``vlan_bridge``, ``pools``, ``volumes``, ``local_volumes``, ``numbers`` (by variable), ``migration_ports``,
        ``secrets``, ``receivers``, ``own_variables``, ``tang_servers``, ``releases``, ``kvm``, and the limits
        ``memory_min_mib``, ``disk_min_bytes``, ``clock_limit``.
    """
    nodes = [_host(name, looked[name]) for name in settings["nodes"] if name in looked]
    tang_hosts = [_host(name, looked[name]) for name in settings["tang"] if name in looked]
    site = Site(nodes, tang_hosts, settings)
    findings = [finding for check in SITE_CHECKS for finding in check(site)]
    for host in site.hosts:
        findings += hosts.reachable(host, settings)
        if host.node:
            checks = HOST_CHECKS + (NODE_CHECKS if host in nodes else ())
            findings += [finding for check in checks for finding in check(host, settings)]
    order = {name: index for index, name in enumerate([CLUSTER, *settings["nodes"], *settings["tang"]])}
    about = settings["about"] or order
    return sorted((one for one in findings if one.host in about), key=lambda finding: order[finding.host])


def preflight_findings(looked: Mapping[str, Data], settings: Data) -> list[dict[str, str]]:
    """Return what :func:`judge` finds as plain data."""
    return [asdict(finding) for finding in judge(looked, settings)]


def secret_findings(secrets: Data) -> list[dict[str, str]]:
    """Return what preflight finds in secrets alone, by the names of their variables, as plain data."""
    return [asdict(finding) for finding in cluster.secrets_sound(secrets)]


def preflight_report(findings: Sequence[Data]) -> str:
    """Return the findings as text, by host."""
    names = list(dict.fromkeys(finding["host"] for finding in findings))
    things = "1 thing stands" if len(findings) == 1 else f"{len(findings)} things stand"
    lines = [f"{things} in the way; nothing was changed."]
    for name in names:
        lines += ["", name]
        for finding in findings:
            if finding["host"] == name:
                lines += [f"  - {finding['variable']}: {finding['found']}", f"    Remedy: {finding['remedy']}"]
    return "\n".join(lines)


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "preflight_findings": preflight_findings,
            "preflight_report": preflight_report,
            "secret_findings": secret_findings,
        }
