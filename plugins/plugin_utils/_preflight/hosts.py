# SPDX-License-Identifier: GPL-3.0-or-later
"""Each host as it was found: whether it answers, what it runs, its memory and clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import combinations

from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    Check,
    Data,
    Finding,
    Host,
    HostCheck,
    Site,
)


def reachable(host: Host, settings: Data) -> Iterator[Finding]:
    """The host could be looked at."""
    if host.problem:
        yield Finding(
            host.name,
            "ansible_host",
            host.problem,
            "make it answer first: address, ssh key, sudo, python3; the test is "
            f"`ansible -i YOUR-INVENTORY --ask-vault-pass -b -m ansible.builtin.ping {host.name}`",
        )


def privileges(host: Host, settings: Data) -> Iterator[Finding]:
    """The module ran as root, and apt can be driven from Python."""
    if not host.node["root"]:
        yield Finding(
            host.name, "ansible_become", "the tasks do not run as root", "set ansible_become, or log in as root"
        )
    if not host.node["python_apt"]:
        yield Finding(
            host.name,
            "ansible_python_interpreter",
            "the Python that Ansible uses there has no apt bindings",
            "run `apt-get install python3-apt` on the host, and let Ansible use /usr/bin/python3",
        )


def release_supported(host: Host, settings: Data) -> Iterator[Finding]:
    """The host runs a Debian that this collection is tested on."""
    release = host.node["release"]
    if release["id"] != "debian" or release["version_id"] not in settings["releases"]:
        yield Finding(
            host.name,
            "preflight_releases",
            f"it runs {release['id']} {release['version_id']}".strip(),
            f"install Debian {' or '.join(settings['releases'])} there",
        )


def own_name(host: Host, settings: Data) -> Iterator[Finding]:
    """The host calls itself what the inventory calls it: storage and guests find each other by these names."""
    name = host.node["hostname"]
    if name.split(".")[0] != host.name.split(".")[0]:
        yield Finding(
            host.name,
            "inventory_hostname",
            f"the host calls itself {name}",
            f"run `hostnamectl set-hostname {host.name}` there, or rename it in the inventory",
        )


def memory_enough(host: Host, settings: Data) -> Iterator[Finding]:
    """There is memory for the layers, before the first guest."""
    if host.node["memory_mib"] < settings["memory_min_mib"]:
        yield Finding(
            host.name,
            "preflight_memory_min_mib",
            f"{host.node['memory_mib']} MiB of memory, {settings['memory_min_mib']} are needed",
            "put more memory into the node; what guests need comes on top",
        )


def kvm_present(host: Host, settings: Data) -> Iterator[Finding]:
    """The processor's virtualisation is switched on, where guests are to use it."""
    if settings["kvm"] and not host.node["kvm"]:
        yield Finding(
            host.name,
            "cluster_domain_type",
            "there is no /dev/kvm",
            "switch on VT-x or AMD-V (SVM) in the firmware setup; emulated guests need cluster_domain_type: qemu",
        )


def clock_in_step(host: Host, settings: Data) -> Iterator[Finding]:
    """The clock is surely not further from the controller's than allowed."""
    away = max(host.clock["low"], -host.clock["high"])
    if away > settings["clock_limit"]:
        side = "ahead of" if host.clock["low"] > 0 else "behind"
        yield Finding(
            host.name,
            "preflight_clock_limit",
            f"its clock is at least {away:.0f} s {side} the controller's, {settings['clock_limit']} s are allowed",
            "set it right: `timedatectl` on the host shows it, `timedatectl set-ntp true` lets the network set it",
        )


def releases_alike(site: Site) -> Iterator[Finding]:
    """All nodes run the same Debian release."""
    releases = {host.name: host.node["release"]["version_id"] for host in site.nodes if host.node}
    common = Counter(releases.values()).most_common(1)
    for name, release in releases.items():
        if release != common[0][0]:
            yield Finding(
                name,
                "preflight_releases",
                f"it runs Debian {release}, most nodes run {common[0][0]}",
                "install the same release on all nodes",
            )


def clocks_together(site: Site) -> Iterator[Finding]:
    """No two clocks are surely further apart than allowed, also when each is near enough to the controller's."""
    limit = site.settings["clock_limit"]
    looked = [host for host in site.hosts if host.node]
    for one, two in combinations(looked, 2):
        apart = max(one.clock["low"] - two.clock["high"], two.clock["low"] - one.clock["high"])
        if apart > limit and all(not any(clock_in_step(host, site.settings)) for host in (one, two)):
            yield Finding(
                two.name,
                "preflight_clock_limit",
                f"its clock is at least {apart:.0f} s away from that of {one.name}, {limit} s are allowed",
                "set both right: `timedatectl` shows them, `timedatectl set-ntp true` lets the network set them",
            )


SITE_CHECKS: tuple[Check, ...] = (releases_alike, clocks_together)
HOST_CHECKS: tuple[HostCheck, ...] = (privileges, release_supported, own_name, clock_in_step)
NODE_CHECKS: tuple[HostCheck, ...] = (memory_enough, kvm_present)
