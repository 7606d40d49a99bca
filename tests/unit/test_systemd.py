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
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed

RECORDED = Path(__file__).parent / "recorded" / "systemd"
NAMES = ["ssh.service", "glusterd.service", "nonexistent.service"]


def replay(text: str) -> Callable[..., Completed]:
    def run(argv: Sequence[str], **_options: Any) -> Completed:
        assert argv[:2] == ["systemctl", "show"]
        return Completed(0, text, "")

    return run


def units(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    empty: dict[str, Any] = {"enabled": None, "masked": None, "state": None, "restart_after": [], "restart_when": []}
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


def restarted(tmp_path: Path, answers: list[Completed], limit: float) -> list[list[str]]:
    """Return what is called to restart a unit whose condition answers like this."""
    asked: list[list[str]] = []

    def run(argv: Sequence[str], **options: Any) -> Completed:
        asked.append(list(argv))
        if argv[0] != "ready":
            return Completed(0, started_at(1), "")
        assert options["ok"] is None
        return answers.pop(0) if len(answers) > 1 else answers[0]

    (tmp_path / "new.conf").write_text("x")
    wanted = {"state": "started", "restart_after": [str(tmp_path / "new.conf")], "restart_when": ["ready", "now"]}
    resource = Units(units(wanted, {**wanted, "restart_after": []}, {}), run, limit)
    for step in resource.plan(resource.read()).steps:
        step.apply()
    return asked[1:]


def test_a_unit_is_restarted_when_it_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    answers = [Completed(1, "node1 is not connected to node2\n", ""), Completed(0, "", "")]
    # The other one is only started, and nobody is asked for that.
    assert restarted(tmp_path, answers, 60) == [
        ["ready", "now"],
        ["ready", "now"],
        ["systemctl", "restart", "--", "ssh.service"],
        ["systemctl", "start", "--", "glusterd.service"],
    ]
    assert len(pauses) == 1


def test_a_unit_that_may_not_be_restarted_keeps_running(tmp_path: Path) -> None:
    why = "ssh.service is not restarted, .* for 0 s ready now failed .node1 is not connected to node2.; mend that"
    with pytest.raises(ClusterError, match=why):
        restarted(tmp_path, [Completed(1, "node1 is not connected to node2\n", "")], 0)


def test_a_unit_younger_than_its_configuration_is_left_alone() -> None:
    oldest = min(("/etc/hostname", "/etc/passwd", "/bin"), key=lambda path: os.stat(path).st_ctime)
    assert newer_file_steps(started_at(10**15), Path(oldest)) == []
