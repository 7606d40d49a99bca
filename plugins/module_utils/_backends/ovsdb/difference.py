# SPDX-License-Identifier: GPL-3.0-or-later
"""The difference of two models, as ``ovs-vsctl`` commands that go through in one transaction.

The way back, which safe apply writes to disk, comes from the same function with its arguments swapped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.model import (
    MARK,
    Bridge,
    Columns,
    Interface,
    Model,
    Port,
    empty,
    local_port,
)

# Columns whose schema allows no empty set: cleared by an empty string.
PLAIN_STRINGS = frozenset(("type", "datapath_type"))


@dataclass(frozen=True)
class Change:
    """One sentence and the ``ovs-vsctl`` commands behind it."""

    sentence: str
    commands: list[list[str]]


def difference(now: Model, then: Model) -> list[Change]:
    """Return what turns ``now`` into ``then``: removals, additions, then settings."""
    removals: list[Change] = []
    additions: list[Change] = []
    settings: list[Change] = []
    for name in now:
        if name not in then:
            removals.append(Change(f"remove bridge {name}", [["--if-exists", "del-br", name]]))
    for name, bridge in then.items():
        old = now.get(name)
        if old is None:
            phrases = _settings("Bridge", name, {}, bridge.columns)
            details = "; ".join(phrase.replace("none -> ", "") for phrase, _commands in phrases if phrase)
            commands = [["add-br", name]] + [command for _phrase, group in phrases for command in group]
            additions.append(Change(f"create bridge {name}" + (f" ({details})" if details else ""), commands))
            old = Bridge(name, bridge.columns, {name: local_port(name)})
        settings += _configured("bridge", name, _settings("Bridge", name, old.columns, bridge.columns))
        _port_difference(old, bridge, removals, additions, settings)
    return removals + additions + settings


def _port_difference(
    now: Bridge, then: Bridge, removals: list[Change], additions: list[Change], settings: list[Change]
) -> None:
    for name, port in now.ports.items():
        if name not in then.ports or not _same_kind(port, then.ports[name]):
            removals.append(_removed(now.name, port))
    for name, port in then.ports.items():
        old = now.ports.get(name)
        if old is None or not _same_kind(old, port):
            additions.append(_added(then.name, port))
            continue
        for item in sorted(set(old.interfaces) - set(port.interfaces)):
            removals.append(Change(f"remove {item} from bond {name}", [["del-bond-iface", name, item]]))
        for item in sorted(set(port.interfaces) - set(old.interfaces)):
            additions.append(Change(f"add {item} to bond {name}", [["add-bond-iface", name, item]]))
        settings += _configured("port", name, _port_settings(old, port, {}))


def _same_kind(now: Port, then: Port) -> bool:
    """Whether ``now`` can become ``then`` without being made anew."""
    if bool(now.columns.get("fake_bridge")) != bool(then.columns.get("fake_bridge")):
        return False
    if set(now.interfaces) == set(then.interfaces):
        return True
    return len(now.interfaces) > 1 and len(then.interfaces) > 1 and bool(set(now.interfaces) & set(then.interfaces))


def _added(bridge: str, port: Port) -> Change:
    made: Columns = {}
    if port.columns.get("fake_bridge"):
        made = {"fake_bridge": True, "tag": port.columns.get("tag")}
        first = ["add-br", port.name, bridge, str(port.columns.get("tag"))]
        # ovs-vsctl makes the internal interface of a fake bridge itself.
        port = replace(port, interfaces={port.name: Interface(port.name, {})})
    elif len(port.interfaces) > 1:
        first = ["add-bond", bridge, port.name, *port.interfaces]
    else:
        first = ["add-port", bridge, port.name]
    settings = _port_settings(None, port, made)
    what = "fake bridge" if made else "bond" if len(port.interfaces) > 1 else "port"
    details = [phrase.replace("none -> ", "") for phrase, _commands in settings if phrase]
    if made:
        details.insert(0, f"tag: {made['tag']}")
    if what == "bond":
        details.insert(0, "members: " + ", ".join(port.interfaces))
    sentence = f"add {what} {port.name} to bridge {bridge}" + (f" ({'; '.join(details)})" if details else "")
    return Change(sentence, [first] + [command for _phrase, commands in settings for command in commands])


def _removed(bridge: str, port: Port) -> Change:
    verb = "del-br" if port.columns.get("fake_bridge") else "del-port"
    return Change(f"remove port {port.name} from bridge {bridge}", [["--if-exists", verb, port.name]])


def _configured(kind: str, name: str, settings: list[tuple[str, list[list[str]]]]) -> list[Change]:
    return [Change(f"set {kind} {name}, {phrase or 'its mark'}", commands) for phrase, commands in settings]


def _port_settings(now: Optional[Port], then: Port, made: Columns) -> list[tuple[str, list[list[str]]]]:
    """Return what to set on a port and its interfaces; ``made`` is what creating it set already."""
    found = _settings("Port", then.name, now.columns if now else made, then.columns)
    for name, interface in then.interfaces.items():
        old = now.interfaces[name].columns if now and name in now.interfaces else {}
        found += _settings("Interface", name, old, interface.columns)
    return found


def _settings(table: str, name: str, now: Columns, then: Columns) -> list[tuple[str, list[list[str]]]]:
    """Return for each column that differs a phrase and its commands."""
    found = []
    for column in sorted(set(now) | set(then)):
        old, new = now.get(column), then.get(column)
        if old == new or (empty(old) and empty(new)):
            continue
        if isinstance(old or new, dict):
            found.append(_map_setting(table, name, column, (old or {}, new or {})))
            continue
        if empty(new) and column in PLAIN_STRINGS:
            command = ["set", table, name, f'{column}=""']
        elif empty(new) and not isinstance(old, bool):
            command = ["clear", table, name, column]
        else:
            command = ["set", table, name, f"{column}={_quoted(False if new is None else new)}"]
        found.append((f"{column}: {_shown(old)} -> {_shown(new)}", [command]))
    return found


def _map_setting(
    table: str, name: str, column: str, values: tuple[dict[str, str], dict[str, str]]
) -> tuple[str, list[list[str]]]:
    old, new = values
    gone = sorted(set(old) - set(new))
    fresh = sorted(key for key in new if old.get(key) != new[key])
    commands = []
    if gone:
        commands.append(["remove", table, name, column, *(json.dumps(key) for key in gone)])
    if fresh:
        commands.append(["set", table, name, *(f"{column}:{json.dumps(key)}={json.dumps(new[key])}" for key in fresh)])
    phrases = [f"{key}={new[key]}" for key in fresh if key != MARK] + [f"without {key}" for key in gone if key != MARK]
    return (f"{column}: {', '.join(phrases)}" if phrases else "", commands)


def _quoted(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(str(item) for item in value)
    return json.dumps(value) if isinstance(value, str) else str(value)


def _shown(value: Any) -> str:
    if empty(value):
        return "none"
    if isinstance(value, dict):
        return ", ".join(f"{key}={value[key]}" for key in sorted(value))
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)


def argv(changes: Iterable[Change], base: list[str]) -> list[str]:
    """Return one ``ovs-vsctl`` call for all ``changes``."""
    call = list(base)
    for change in changes:
        for command in change.commands:
            call += ["--", *command]
    return call
