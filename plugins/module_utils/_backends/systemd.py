# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd units: one `systemctl show` reads all of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

PROPERTIES = (
    "Id",
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "NeedDaemonReload",
    "InactiveExitTimestampMonotonic",
)
RUNS = ("active", "activating", "reloading", "refreshing")


@dataclass(frozen=True)
class Unit:
    """One unit as systemd sees it; ``stale`` means that a file it depends on is newer than its start."""

    loaded: bool
    enabled: bool
    masked: bool
    active: bool
    stale: bool = False


@dataclass(frozen=True)
class State:
    """All declared units, and whether any unit's file changed since systemd read it."""

    units: Mapping[str, Unit]
    reload: bool = False


def _started(block: Mapping[str, str]) -> float:
    """Return when the unit was started, as seconds since the epoch; 0 when never.

    systemd prints its wall clock stamps in whole seconds: a file written in the second of a restart would look newer.
    """
    since_boot = int(block.get("InactiveExitTimestampMonotonic") or 0) / 1e6
    return time.time() - time.monotonic() + since_boot if since_boot else 0.0


def _changed(paths: list[str]) -> float:
    # A rename over the old file sets the change time, not the modification time, of what now stands there.
    return max((Path(path).stat().st_ctime for path in paths if Path(path).exists()), default=0.0)


def as_unit(block: Mapping[str, str], watched: list[str]) -> Unit:
    """Return a unit from its properties and the files whose change makes it stale."""
    active = block.get("ActiveState") in RUNS
    file_state = block.get("UnitFileState", "")
    return Unit(
        loaded=block.get("LoadState") in ("loaded", "masked"),
        enabled=file_state in ("enabled", "enabled-runtime", "alias"),
        masked=block.get("LoadState") == "masked" or file_state.startswith("masked"),
        active=active,
        stale=active and _changed(watched) > _started(block) > 0,
    )


class Units:
    """All units of a layer; see the module systemd_units for the items."""

    def __init__(self, items: list[dict[str, Any]], run: Run, timeout: float) -> None:
        self._items = items
        self._run = run
        self._timeout = timeout

    def read(self) -> State:
        """Ask systemd about every unit at once."""
        names = [item["name"] for item in self._items]
        argv = ["systemctl", "show", f"--property={','.join(PROPERTIES)}", "--", *names]
        blocks = list(_blocks(self._run(argv, timeout=self._timeout).stdout))
        if len(blocks) != len(names):
            raise ClusterError(f"systemctl answered for {len(blocks)} of {len(names)} units: {', '.join(names)}")
        units = {
            item["name"]: as_unit(block, item["restart_after"]) for item, block in zip(self._items, blocks, strict=True)
        }
        return State(units, any(block.get("NeedDaemonReload") == "yes" for block in blocks))

    def blank(self) -> State:
        """Return a host that knows none of the units."""
        return State({item["name"]: Unit(False, False, False, False) for item in self._items})

    def plan(self, state: State) -> Plan[State]:
        """Reload, unmask, enable, then start, restart or stop each unit in order."""
        plan: Plan[State] = Plan(state)
        units = dict(state.units)
        if state.reload:
            plan.steps.append(Step("reload systemd's unit files", partial(self._systemctl, "daemon-reload")))
        for item in self._items:
            name = item["name"]
            units[name] = self._plan_unit(plan, item, units[name])
        plan.predicted = State(units)
        return plan

    def _plan_unit(self, plan: Plan[State], item: Mapping[str, Any], unit: Unit) -> Unit:
        for verb, changed in _verbs(item, unit):
            plan.steps.append(Step(f"{verb} {item['name']}", partial(self._systemctl, verb, item["name"])))
            unit = changed
        return unit

    def _systemctl(self, verb: str, *names: str) -> None:
        try:
            self._run(["systemctl", verb, "--", *names] if names else ["systemctl", verb], timeout=self._timeout)
        except CommandFailed as error:
            journal = ["journalctl", "--no-pager", "-n", "15", "-o", "cat", *(f"--unit={name}" for name in names)]
            raise ClusterError(f"{error}; the journal ends: {self._run(journal, ok=None).stdout.strip()}") from error

    def view(self, state: State) -> dict[str, Any]:
        """Return the units as plain data."""
        return {
            "units": {
                name: {"enabled": unit.enabled, "masked": unit.masked, "active": unit.active, "stale": unit.stale}
                for name, unit in state.units.items()
            }
        }


def _verbs(item: Mapping[str, Any], unit: Unit) -> list[tuple[str, Unit]]:
    """Return the systemctl verbs that a unit needs, each with the unit after it."""
    verbs: list[tuple[str, Unit]] = []

    def need(verb: str, **change: bool) -> None:
        nonlocal unit
        unit = replace(unit, **change)
        verbs.append((verb, unit))

    if item["masked"] is False and unit.masked:
        need("unmask", masked=False)
    if item["enabled"] is True and not unit.enabled:
        need("enable", enabled=True, loaded=True)
    if item["enabled"] is False and unit.enabled:
        need("disable", enabled=False)
    if item["state"] == "started" and not unit.active:
        need("start", active=True)
    elif item["state"] == "started" and unit.stale:
        need("restart", stale=False)
    if item["state"] == "stopped" and unit.active:
        need("stop", active=False)
    if item["masked"] is True and not unit.masked:
        need("mask", masked=True)
    return verbs


def _blocks(text: str) -> list[dict[str, str]]:
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in text.strip("\n").split("\n\n")
        if block.strip()
    ]
