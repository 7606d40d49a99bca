# SPDX-License-Identifier: GPL-3.0-or-later
"""What a no-change run of site.yml costs on the converged lab, against as many bare pings on the same nodes."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import playbook


def _pings(count: int) -> str:
    tasks = "".join(f"    - name: Ping {number}\n      ansible.builtin.ping:\n" for number in range(count))
    return f"---\n- name: Ping\n  hosts: nodes\n  gather_facts: false\n  tasks:\n{tasks}"


def _counts(executions: Mapping[str, int]) -> str:
    return ", ".join(f"{host} {count}" for host, count in sorted(executions.items()))


def main() -> int:
    """Print wall time per layer, executions per node, and the ratio to bare pings."""
    site = playbook.run("site.yml", quiet=True)
    changed = {host: recap.changed for host, recap in site.hosts.items()}
    if site.rc or any(changed.values()):
        print(f"bench: the lab is not converged (exit code {site.rc}, changed {changed}); run 'make lab' first")
        return 1
    executions = site.executions()
    nodes = {host: count for host, count in executions.items() if host.startswith("node")}
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "ping.yml"
        file.write_text(_pings(max(nodes.values())))
        bare = playbook.run(str(file), quiet=True)
    print("A no-change run of site.yml:")
    for layer, seconds in site.layers().items():
        print(f"  {layer:<12}{seconds:6.0f} s")
    print(f"  {'all':<12}{site.seconds:6.0f} s")
    print(f"Module executions: {_counts(executions)}")
    print(f"  of encryption and storage: {_counts(site.executions('encryption', 'storage'))}")
    print(
        f"{max(nodes.values())} bare pings on the same nodes: {bare.seconds:.0f} s; "
        f"ratio {site.seconds / bare.seconds:.2f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
