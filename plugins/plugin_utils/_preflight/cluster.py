# SPDX-License-Identifier: GPL-3.0-or-later
"""What concerns the cluster as a whole: its nodes' number and names, its secrets, its numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._secrets import NO_TEXT, no_text
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Data,
    Finding,
    Site,
    whole,
)

# Beyond these, data is lost or given up, a guest stays frozen, a daemon never starts or never rests.
RANGES = {
    "tang_port": (1, 65535),
    "storage_pool_percent": (1, 100),
    "storage_volume_percent": (1, 100),
    # With 100 LVM extends nothing.
    "storage_autoextend_threshold": (50, 99),
    "storage_autoextend_percent": (1, 100),
    "storage_brick_wait": (1, 86400),
    "storage_mount_wait": (1, 86400),
    "storage_base_port": (1024, 60900),
    "backup_keep_daily": (1, 36500),
    "backup_keep_within_days": (0, 36500),
    "backup_freeze_limit": (1, 600),
    "backup_capture_limit": (60, 604800),
    "telemetry_collect_interval": (10, 3600),
    "telemetry_collect_timeout": (1, 600),
}
# The default of the role storage, and what its template has.
BASE_PORT, LAST_BRICK_PORT = 49250, 60999
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
PLACEHOLDER = re.compile(
    r"<.*>|.*(change.?me|placeholder|todo|xxxx|your.?pass|example).*|(pass|secret|password)\d*", re.I
)
SECRET_LENGTH = 12
EDIT = "`ansible-vault edit YOUR-INVENTORY/group_vars/all/vault.yml`"
NEW_SECRET = (
    f"write what `openssl rand -base64 24` prints with {EDIT} (the first time edit the file as it is, then "
    "`ansible-vault encrypt` it); keep a copy outside the cluster"
)
QUOTES = f"put it in quotes with {EDIT}; if it is in use already, docs/encryption.md says what to write"
# In plain text, by the role that needs them there.
KEPT_ON_NODES = ("cluster_backup_passphrase", "telemetry_grafana_admin_password")
KEPT = "nodes keep {0} on their system disks, which are not encrypted: who steals a node has {1} too"
LEARNT = "who learns one has both"
# By their names in the words of Alertmanager.
RECEIVER_SECRET = re.compile(r"(^|_)(password|secret|token|key|credentials)$")
# It becomes part of the certificate authority's name, of which X.509 allows 64 characters.
CLUSTER_NAME = re.compile(r"\S(.{0,45}\S)?")


def count_of_nodes(site: Site) -> Iterator[Finding]:
    """Three nodes at least: fewer have no majority when one is gone, and four or eight none when they are parted."""
    count = len(site.settings["nodes"])
    if count < 3 or (count % 2 == 0 and count % 3):
        yield Finding(
            CLUSTER,
            "group nodes",
            f"it has {count} hosts",
            "put three nodes, or six, into the inventory group `nodes`; another even number has no majority",
        )


def names_valid(site: Site) -> Iterator[Finding]:
    """Inventory names become host names: letters, digits and hyphens only."""
    for host in site.hosts:
        if not all(LABEL.fullmatch(label) for label in host.name.split(".")):
            yield Finding(
                host.name,
                "inventory_hostname",
                "it is no valid host name",
                "rename it in the inventory: lower case letters, digits and hyphens",
            )


def names_of_the_cluster(site: Site) -> Iterator[Finding]:
    """The cluster has a name, and a directory of its own for its certificate authority."""
    name, directory = site.settings["cluster_name"], site.settings["state_dir"]
    if not isinstance(name, str | int) or not CLUSTER_NAME.fullmatch(str(name)):
        yield Finding(
            CLUSTER,
            "cluster_name",
            f"{name!r} is no name" if name else "it is empty or not set",
            "give the cluster a name of one line and at most 47 characters, and never change it",
        )
    # Some of what reads it knows no ~ and no $HOME, and nothing may be read from where Ansible happens to be run.
    if not isinstance(directory, str) or not directory.startswith("/") or not directory.strip("/ "):
        yield Finding(
            CLUSTER,
            "cluster_state_dir",
            f"{directory!r} is no whole path of a directory of its own" if directory else "it is empty or not set",
            "name a directory on the computer that runs Ansible, from / on, for the certificate authority and the keys "
            "of the nodes; the example inventory has one in your home",
        )


def numbers_in_range(site: Site) -> Iterator[Finding]:
    """Percentages and limits are such that no harm follows; those that are not set have a role's default."""
    for variable, (low, high) in RANGES.items():
        value = site.settings["numbers"].get(variable)
        number = whole(value)
        if value is not None and (number is None or not low <= number <= high):
            yield Finding(
                CLUSTER,
                variable,
                f"{value!r} is no whole number from {low} to {high}",
                "correct it, or leave it out and have the default",
            )


def ports_apart(site: Site) -> Iterator[Finding]:
    """Migrations and bricks have ports of their own: a brick that finds its port taken does not start."""
    declared = site.settings["migration_ports"]
    ports = [whole(port) for port in declared] if isinstance(declared, list) else []
    match ports:
        case [int(first), int(last)] if 1 <= first <= last <= 65535:
            base = whole(site.settings["numbers"].get("storage_base_port")) or BASE_PORT
            if first <= LAST_BRICK_PORT and last >= base:
                yield Finding(
                    CLUSTER,
                    "storage_base_port and hypervisor_migration_ports",
                    f"bricks take ports from {base} to {LAST_BRICK_PORT}, and migrations those from {first} to {last}",
                    f"leave them out and have the defaults, or let migrations begin above {LAST_BRICK_PORT}",
                )
        case _:
            yield Finding(
                CLUSTER,
                "hypervisor_migration_ports",
                f"{declared!r} is no pair of ports",
                "write the first and the last one: [61152, 61215]",
            )


def secrets_present(site: Site) -> Iterator[Finding]:
    """The secrets are there, and nobody left the example's text in them. Their values never show."""
    yield from secrets_sound(site.settings["secrets"])
    for variable, receiver in site.settings["receivers"].items():
        for place, value in _inside(variable, receiver):
            if RECEIVER_SECRET.search(place.rpartition(".")[2]) and no_text(value):
                yield Finding(CLUSTER, place, NO_TEXT, QUOTES)


def secrets_sound(secrets: Data) -> Iterator[Finding]:
    """Secrets, by the names of their variables, are what somebody made for this cluster."""
    faults = {variable: _secret_fault(value) for variable, value in secrets.items()}
    for variable, found in faults.items():
        if found:
            yield Finding(CLUSTER, variable, found, QUOTES if found == NO_TEXT else NEW_SECRET)
    for one, two in combinations([variable for variable, found in faults.items() if not found], 2):
        if secrets[one] == secrets[two]:
            kept = next((variable for variable in (one, two) if variable in KEPT_ON_NODES), "")
            yield Finding(
                CLUSTER,
                f"{one} and {two}",
                f"they are equal, and {KEPT.format(kept, two if kept == one else one) if kept else LEARNT}",
                f"give one of them another value, with {EDIT}; for what is in use already, docs/encryption.md says how",
            )


def _secret_fault(value: Any) -> str:
    """Say why ``value`` is no secret; an empty string when it is one."""
    if no_text(value):
        return NO_TEXT
    text = str(value or "")
    if not text.strip():
        return "it is empty or not set"
    if PLACEHOLDER.fullmatch(text.strip()):
        return "it still holds a placeholder"
    if len(text) < SECRET_LENGTH:
        return f"it is shorter than {SECRET_LENGTH} characters"
    return "it has more than one line" if "\n" in text else ""


def _inside(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield everything in nested data that is neither a mapping nor a list, with its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inside(f"{place}.{key}", item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _inside(f"{place}[{index}]", item)
    else:
        yield place, value


def room_for_snapshots(site: Site) -> Iterator[Finding]:
    """A filesystem is smaller than its disk: what is written after a snapshot needs room beside what was."""
    shares = ("storage_pool_percent", "storage_volume_percent")
    if all(whole(site.settings["numbers"].get(variable)) == 100 for variable in shares):
        yield Finding(
            CLUSTER,
            " and ".join(shares),
            "both are 100, which leaves no room for snapshots, and none for a pool to grow",
            "lower one of them, the defaults are 90 and 85; disks that are in use stay as they are",
        )


SITE_CHECKS: tuple[Check, ...] = (
    count_of_nodes,
    names_valid,
    names_of_the_cluster,
    numbers_in_range,
    ports_apart,
    room_for_snapshots,
    secrets_present,
)
