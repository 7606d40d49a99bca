# SPDX-License-Identifier: GPL-3.0-or-later
"""Units from recorded `systemctl show` output, and the verbs that bring them to the desired state."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.personal.cluster.plugins.module_utils._backends.systemd import Units
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded" / "systemd"
NAMES = ["ssh.service", "glusterd.service", "nonexistent.service"]


def replay(text: str) -> Callable[..., Completed]:
    def run(argv: Sequence[str], **_options: Any) -> Completed:
        assert argv[:2] == ["systemctl", "show"]
        return Completed(0, text, "")

    return run


def units(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {"enabled": None, "masked": None, "state": None, "restart_after": []}
    return [{**empty, "name": name, **change} for name, change in zip(NAMES, changes, strict=True)]


def sentences(release: str, *changes: dict[str, Any]) -> list[str]:
    resource = Units(units(*changes), replay((RECORDED / f"{release}.txt").read_text()), 10)
    return [step.sentence for step in resource.plan(resource.read()).steps]


@pytest.mark.parametrize("release", ["trixie"])
def test_a_running_enabled_unit_needs_nothing(release: str) -> None:
    assert sentences(release, {"enabled": True, "state": "started"}, {}, {}) == []


def test_a_disabled_stopped_unit_is_enabled_then_started() -> None:
    wanted = {"enabled": True, "state": "started"}
    reload = "reload systemd's unit files"
    assert sentences("trixie", {}, wanted, {}) == ["enable glusterd.service", reload, "start glusterd.service"]


def test_systemd_reads_its_files_once_however_many_units_are_enabled() -> None:
    """Run the plan: the real runner's argv, one for all units, without SysV links and without a reload of its own."""
    calls: list[tuple[list[str], Any]] = []
    text = (RECORDED / "trixie.txt").read_text()

    def run(argv: Sequence[str], **options: Any) -> Completed:
        calls.append((list(argv), options.get("env")))
        return Completed(0, text, "")

    wanted = {"enabled": True, "state": "started"}
    resource = Units(units({"enabled": False}, wanted, wanted), run, 10)
    plan = resource.plan(resource.read())
    for step in plan.steps:
        step.apply()
    native = {"SYSTEMCTL_SKIP_SYSV": "1"}
    assert calls[1:] == [
        (["systemctl", "--no-reload", "enable", "--", "glusterd.service", "nonexistent.service"], native),
        (["systemctl", "--no-reload", "disable", "--", "ssh.service"], native),
        (["systemctl", "daemon-reload"], native),
        (["systemctl", "start", "--", "glusterd.service"], native),
        (["systemctl", "start", "--", "nonexistent.service"], native),
    ]


def test_masking_comes_last_and_stopping_before_it() -> None:
    wanted = {"masked": True, "state": "stopped", "enabled": False}
    assert sentences("trixie", wanted, {}, {}) == [
        "disable ssh.service",
        "reload systemd's unit files",
        "stop ssh.service",
        "mask ssh.service",
        "reload systemd's unit files",
    ]


def started_at(microseconds: int) -> str:
    """Return the record as of a unit that began so long after this computer's boot."""
    text = (RECORDED / "trixie.txt").read_text()
    return re.sub("InactiveExitTimestampMonotonic=[1-9]\\d*", f"InactiveExitTimestampMonotonic={microseconds}", text)


def newer_file_steps(text: str, *files: Path) -> list[str]:
    """Return what a started unit with these configuration files needs."""
    wanted = {"state": "started", "restart_after": [str(path) for path in files]}
    resource = Units(units(wanted, {}, {}), replay(text), 10)
    return [step.sentence for step in resource.plan(resource.read()).steps]


def test_a_unit_older_than_its_configuration_is_restarted(tmp_path: Path) -> None:
    fresh = tmp_path / "new.conf"
    fresh.write_text("x")
    assert newer_file_steps(started_at(1), fresh, tmp_path / "missing.conf") == ["restart ssh.service"]


def test_a_file_written_in_the_second_before_the_start_is_not_newer(tmp_path: Path) -> None:
    written = tmp_path / "new.conf"
    written.write_text("x")
    # Started some hundredths of a second after the file was written, so in the same second most of the time.
    assert newer_file_steps(started_at(int(time.monotonic() * 1e6) + 20000), written) == []


def test_a_unit_younger_than_its_configuration_is_left_alone() -> None:
    oldest = min(("/etc/hostname", "/etc/passwd", "/bin"), key=lambda path: os.stat(path).st_ctime)
    assert newer_file_steps(started_at(10**15), Path(oldest)) == []
