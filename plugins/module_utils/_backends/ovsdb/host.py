# SPDX-License-Identifier: GPL-3.0-or-later
"""The host around the switch: the kernel's interfaces, and the files of ifupdown."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import Model
from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing

INTERFACES = "/etc/network/interfaces"
INTERFACES_D = "/etc/network/interfaces.d"


@dataclass(frozen=True)
class Link:
    """A network interface of the kernel; ``kind`` is empty for hardware."""

    name: str
    mac: str
    kind: str = ""
    addresses: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """What the host holds: the switch, the kernel's interfaces and routes, ifupdown's files, pending rollbacks."""

    bridges: Model = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    routes: tuple[dict[str, Any], ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    pending: tuple[str, ...] = ()


def parse_links(text: str) -> dict[str, Link]:
    """Return the interfaces, with their global addresses, in what ``ip -json -details address`` printed."""
    links = {}
    for item in json.loads(text or "[]"):
        if not item.get("ifname"):
            continue
        own = [entry for entry in item.get("addr_info", []) if entry.get("scope") == "global"]
        # A route advertisement or a DHCP client gives temporary addresses again on its own: they are not carried.
        links[item["ifname"]] = Link(
            item["ifname"],
            item.get("permaddr") or item.get("address", ""),
            item.get("linkinfo", {}).get("info_kind", ""),
            tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in own),
            tuple(f"{entry['local']}/{entry['prefixlen']}" for entry in own if entry.get("dynamic")),
        )
    return links


def interfaces_files() -> dict[str, str]:
    """Return the files that ifupdown reads, with their text."""
    paths = [INTERFACES] if os.path.isfile(INTERFACES) else []
    if os.path.isdir(INTERFACES_D):
        paths += [os.path.join(INTERFACES_D, name) for name in sorted(os.listdir(INTERFACES_D)) if name[0] != "."]
    return {path: read_text(path) for path in paths if os.path.isfile(path)}


def stanza_names(text: str) -> list[str]:
    """Return the interfaces that an interfaces(5) file configures."""
    names = set()
    for line in _logical_lines(text):
        words = line.split()
        if words and (words[0] in ("iface", "auto") or words[0].startswith("allow-")):
            names.update(words[1:2] if words[0] == "iface" else words[1:])
    return sorted(names - {"lo"})


def without_stanzas(text: str, names: Collection[str]) -> str:
    """Return an interfaces(5) file without the stanzas of ``names``; every other line stays as it is."""
    kept: list[str] = []
    dropping = False
    for line in _logical_lines(text):
        words = line.split()
        first = words[0] if words else ""
        if first == "iface":
            dropping = len(words) > 1 and words[1] in names
        elif first == "auto" or first.startswith("allow-"):
            dropping = False
            left = [word for word in words[1:] if word not in names]
            if len(left) < len(words) - 1:
                if left:
                    kept.append(f"{first} {' '.join(left)}\n")
                continue
        elif first in ("mapping", "source", "source-directory", "rename", "template") or first.startswith("no-"):
            dropping = False
        elif dropping and (not words or first.startswith("#")):
            kept.append(line)
            continue
        if not dropping:
            kept.append(line)
    return "".join(kept)


def _logical_lines(text: str) -> Iterator[str]:
    """Yield the lines of ``text``, those that end in a backslash together with the next."""
    held = ""
    for line in text.splitlines(keepends=True):
        held += line
        if not line.rstrip("\n").endswith("\\"):
            yield held
            held = ""
    if held:
        yield held


def read_text(path: str) -> str:
    """Return the text of a file, whatever bytes it holds."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return stream.read()


def write_text(path: str, text: str, mode: int = 0o700) -> None:
    """Write ``path`` so that after a power cut it is either the old or the new file."""
    # Hidden until it is whole: ifupdown reads all that has no dot in front, with "source interfaces.d/*".
    with replacing(Path(path), mode) as stream:
        stream.write(text.encode(errors="surrogateescape"))
