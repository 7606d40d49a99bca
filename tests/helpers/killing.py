# SPDX-License-Identifier: GPL-3.0-or-later
"""A run of a playbook that dies in the middle of a task."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from playbook import TOP

# What a run writes when a task is over.
NEXT = ("TASK", "RUNNING HANDLER", "PLAY")


def descendants(pid: int) -> list[int]:
    """Return the processes below ``pid``: ansible-core gives its workers sessions of their own, and they outlive it."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], stdin=subprocess.DEVNULL, capture_output=True, check=True)
    parents = [(int(child), int(parent)) for child, parent in (line.split() for line in table.stdout.splitlines())]
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents if parent in new]
        found += new
    return found


def kill(pid: int) -> None:
    """SIGKILL a run and everything below it."""
    for one in [pid, *descendants(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def die_at(playbook: str, options: list[str], moments: Sequence[tuple[str, float]]) -> None:
    """Let one run after the other die, each so many seconds into a task."""
    for task, delay in moments:
        assert run_and_kill(playbook, options, task, delay), f"it did not die in the task {task!r}"


def run_and_kill(playbook: str, options: list[str], task: str, delay: float) -> bool:
    """Let a run of a playbook on the lab die; tell whether it did."""
    argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", f"playbooks/{playbook}"]
    return die_in([*argv, *options], task, delay)


def die_in(argv: Sequence[str], task: str, delay: float) -> bool:
    """SIGKILL ``ansible-playbook`` and all below it ``delay`` seconds into a task, or where that ends sooner.

    If the run ended before, show what it said, and return False.
    """
    process = subprocess.Popen(
        argv,
        cwd=TOP,
        env={**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"), "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(1500, kill, (process.pid,))
    late.start()
    strike = threading.Timer(delay, kill, (process.pid,))
    assert process.stdout is not None
    began, told = 0.0, deque[str](maxlen=100)
    for line in process.stdout:
        told.append(line)
        if began and line.startswith(NEXT):
            kill(process.pid)
            break
        if line.startswith("TASK") and task in line:
            began = time.monotonic()
            strike.start()
    process.wait()
    late.cancel()
    strike.cancel()
    killed = process.returncode == -signal.SIGKILL and bool(began)
    print(f"  killed {time.monotonic() - began:.1f} s into the task {task!r}" if killed else "".join(told), flush=True)
    return killed
