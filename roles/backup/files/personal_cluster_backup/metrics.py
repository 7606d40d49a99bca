# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of the last run, as a text file for the node exporter."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

PREFIX = "personal_cluster_backup"
RUN = f"{PREFIX}_last_run_"
LAST_GOOD = f"{PREFIX}_last_good_timestamp_seconds"
_SERIES = re.compile(LAST_GOOD + r'\{vm="(.*)"\} (\d+)')


@dataclass(frozen=True)
class Outcome:
    """A finished run; times are seconds since 1970."""

    started: float
    ended: float
    failed: int
    success: bool


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def render(outcome: Outcome | None, last_good: Mapping[str, float], previous: str = "") -> str:
    """Return the exposition text.

    :param outcome: None keeps what ``previous`` says of the last run: a run of some guests is no proof for all.
    :param last_good: by guest of this node, the time of its newest complete set; 0 when it has none.
    """
    lines = _outcome_lines(outcome) if outcome else [line for line in previous.splitlines() if RUN in line]
    lines += [f"# HELP {LAST_GOOD} When the newest complete set of a guest was begun.", f"# TYPE {LAST_GOOD} gauge"]
    lines += [f'{LAST_GOOD}{{vm="{_escape(guest)}"}} {when:.0f}' for guest, when in sorted(last_good.items())]
    return "\n".join(lines) + "\n"


def _outcome_lines(outcome: Outcome) -> list[str]:
    single = [
        ("last_run_timestamp_seconds", "When the last run on this node ended.", f"{outcome.ended:.0f}"),
        ("last_run_duration_seconds", "How long the last run took.", f"{outcome.ended - outcome.started:.0f}"),
        ("last_run_success", "Whether the last run saved every guest of this node.", str(int(outcome.success))),
        ("last_run_failed_guests", "Guests that the last run could not save.", str(outcome.failed)),
    ]
    lines = []
    for name, what, value in single:
        lines += [f"# HELP {PREFIX}_{name} {what}", f"# TYPE {PREFIX}_{name} gauge", f"{PREFIX}_{name} {value}"]
    return lines


def last_good_of(text: str) -> dict[str, float]:
    """Return by guest the times out of an exposition text; what :func:`render` wrote."""
    found = {}
    for line in text.splitlines():
        if match := _SERIES.fullmatch(line):
            found[re.sub(r"\\(.)", lambda item: "\n" if item[1] == "n" else item[1], match[1])] = float(match[2])
    return found


def read(path: str) -> str:
    """Return the present text, empty when there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Replace the file in one piece; without the exporter's directory there is nobody to tell."""
    folder = os.path.dirname(path)
    if not os.path.isdir(folder):
        return
    descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=".personal_cluster_backup.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
    os.replace(temporary, path)
