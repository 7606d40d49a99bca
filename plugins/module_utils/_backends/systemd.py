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
# Each of them would make systemd read all units again, which takes many seconds on a slow node: once is enough.
# Masking comes last, after the unit was stopped.
FILE_VERBS = ("unmask", "enable", "disable")
# Debian's systemctl also calls update-rc.d, which reloads twice more, for the sake of an init that is not running.
NATIVE = {"SYSTEMCTL_SKIP_SYSV": "1"}
# Seconds between two looks whether a unit may be restarted.
PAUSE = 3.0
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
        """Change what is enabled, all units at once; let systemd read that; then start, restart and stop in order."""
        plan: Plan[State] = Plan(state)
        wanted = [(item, state.units[item["name"]]) for item in self._items]
        files = [self._change_files(verb, names) for verb in FILE_VERBS if (names := _named(wanted, verb))]
        plan.steps += files
        reload = Step("reload systemd's unit files", partial(self._systemctl, "daemon-reload"))
        if files or state.reload:
            plan.steps.append(reload)
        plan.steps += [
            Step(f"{verb} {item['name']}", partial(self._change_running, verb, item))
            for item, unit in wanted
            for verb in _running_verbs(item, unit)
        ]
        if last := _named(wanted, "mask"):
            plan.steps += [self._change_files("mask", last), reload]
        plan.predicted = State({item["name"]: _after(item, unit) for item, unit in wanted})
        return plan

    def _change_files(self, verb: str, names: list[str]) -> Step:
        return Step(f"{verb} {', '.join(names)}", partial(self._systemctl, verb, *names, options=("--no-reload",)))

    def _change_running(self, verb: str, item: Mapping[str, Any]) -> None:
        if verb == "restart" and item["restart_when"]:
            self._wait_for(item["name"], item["restart_when"])
        self._systemctl(verb, item["name"])

    def _wait_for(self, name: str, argv: list[str]) -> None:
        deadline = time.monotonic() + self._timeout
        while (done := self._run(argv, timeout=self._timeout, ok=None)).rc:
            if time.monotonic() > deadline:
                said = (done.stdout + done.stderr).strip()
                raise ClusterError(
                    f"{name} is not restarted, and runs with its former configuration: for {self._timeout:.0f} s "
                    f"{' '.join(argv)} failed ({said}); mend that, and run again"
                )
            time.sleep(PAUSE)

    def _systemctl(self, verb: str, *names: str, options: tuple[str, ...] = ()) -> None:
        argv = ["systemctl", *options, verb, *(("--", *names) if names else ())]
        try:
            self._run(argv, timeout=self._timeout, env=NATIVE)
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


def _file_verbs(item: Mapping[str, Any], unit: Unit) -> list[str]:
    """Return the verbs that a unit needs and that change links below /etc/systemd alone."""
    needed = {
        "unmask": item["masked"] is False and unit.masked,
        "enable": item["enabled"] is True and not unit.enabled,
        "disable": item["enabled"] is False and unit.enabled,
        "mask": item["masked"] is True and not unit.masked,
    }
    return [verb for verb, needs in needed.items() if needs]


def _named(wanted: list[tuple[dict[str, Any], Unit]], verb: str) -> list[str]:
    return [item["name"] for item, unit in wanted if verb in _file_verbs(item, unit)]


def _running_verbs(item: Mapping[str, Any], unit: Unit) -> list[str]:
    if item["state"] == "started":
        return ["start"] if not unit.active else ["restart"] if unit.stale else []
    return ["stop"] if item["state"] == "stopped" and unit.active else []


def _after(item: Mapping[str, Any], unit: Unit) -> Unit:
    """Return the unit as it will be."""
    verbs = _file_verbs(item, unit)
    running = _running_verbs(item, unit)
    return replace(
        unit,
        loaded=unit.loaded or "enable" in verbs,
        enabled="enable" in verbs or (unit.enabled and "disable" not in verbs),
        masked="mask" in verbs or (unit.masked and "unmask" not in verbs),
        active="start" in running or (unit.active and "stop" not in running),
        stale=unit.stale and "restart" not in running,
    )


def _blocks(text: str) -> list[dict[str, str]]:
    return [
        dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        for block in text.strip("\n").split("\n\n")
        if block.strip()
    ]
