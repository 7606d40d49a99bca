# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of volumes: how their values are spelled and compared."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What glusterd sets on a new volume by itself.
AT_CREATION = (
    "cluster.granular-entry-heal",
    "nfs.disable",
    "performance.client-io-threads",
    "storage.fips-mode-rchecksum",
    "transport.address-family",
)
# Options of the whole cluster, which volume info lists with every volume.
GLOBAL = (
    "cluster.brick-graceful-cleanup",
    "cluster.brick-multiplex",
    "cluster.daemon-log-level",
    "cluster.enable-shared-storage",
    "cluster.localtime-logging",
    "cluster.max-bricks-per-process",
    "cluster.max-op-version",
    "cluster.op-version",
    "cluster.server-quorum-ratio",
    "config.global-threading",
    "ganesha.enable",
    "nfs-ganesha",
)
# Options that commands of their own set (a snapshot leaves features.barrier), or that gluster cannot reset one by one.
OTHERS_PREFIXES = (
    "changelog.",
    "features.alert-time",
    "features.barrier",
    "features.bitrot",
    "features.default-soft-limit",
    "features.expiry-time",
    "features.hard-timeout",
    "features.inode-quota",
    "features.quota",
    "features.scrub",
    "features.signer-threads",
    "features.soft-timeout",
    "geo-replication.",
    "glusterd.",
    "user.",
)
# The commands of options that ``volume set`` does not take.
COMMANDS = {
    "features.bitrot": "bitrot",
    "features.inode-quota": "inode-quota",
    "features.quota": "quota",
    "features.scrub": "bitrot",
    "features.scrub-freq": "bitrot",
    "features.scrub-throttle": "bitrot",
}
WORDS_ON = ("on", "yes", "true", "enable", "enabled")
WORDS_OFF = ("off", "no", "false", "disable", "disabled")
UNITS = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
# What switches the self-heal daemon of a replicated volume off, and that of a dispersed one.
HEAL_SWITCHES = ("cluster.self-heal-daemon", "cluster.disperse-self-heal-daemon")
# Options for which gluster takes 1 and 0 too, and whose meaning matters here.
SWITCHES = ("client.ssl", "server.ssl", "features.shard", *HEAL_SWITCHES)
COMMA = re.compile(r"\s*,\s*")
SIZE = re.compile(r"(\d+)\s*([kmgt]?b)?$")


def parse_group(text: str) -> dict[str, str]:
    """Return the options of a group file."""
    return dict(line.strip().split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def normal(value: str) -> str:
    """Return one spelling for what gluster takes as the same: booleans, and sizes in any unit."""
    word = value.strip().lower()
    if word in WORDS_ON:
        return "on"
    if word in WORDS_OFF:
        return "off"
    size = SIZE.match(word)
    return str(int(size[1]) * UNITS[size[2] or ""]) if size else COMMA.sub(",", value.strip())


def same(name: str, one: str, other: str) -> bool:
    """Say whether two values of an option are the same to gluster."""
    return _meaning(name, one) == _meaning(name, other)


def is_on(name: str, options: Mapping[str, str]) -> bool:
    """Say whether one of the ``SWITCHES`` that are off by themselves is on."""
    return same(name, options.get(name, "off"), "on")


def _meaning(name: str, value: str) -> str:
    found = normal(value)
    return {"1": "on", "0": "off"}.get(found, found) if name in SWITCHES else found


def may_be_purged(name: str) -> bool:
    """Say whether an option that nobody declares is the operator's to reset."""
    return name not in AT_CREATION and name not in GLOBAL and not name.startswith(OTHERS_PREFIXES)


def option_text(value: Any) -> str:
    """Return an option's value as gluster writes it: YAML's booleans become on and off, a list gets commas.

    What is neither that nor text or a number becomes an empty text, which no option has.
    """
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(map(option_text, value))
    return "" if value is None or isinstance(value, dict) else str(value).strip()
