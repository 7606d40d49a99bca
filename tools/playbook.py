# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a playbook on the lab and account for what it cost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Recap:
    """One host's line at the end of a run."""

    changed: int
    failed: int


@dataclass
class Outcome:
    """How a run ended: exit code, all output, one recap per host, what each play cost."""

    rc: int
    output: str
    seconds: float
    hosts: dict[str, Recap] = field(default_factory=dict)
    plays: list[dict[str, object]] = field(default_factory=list)

    def layers(self) -> dict[str, float]:
        """Return seconds per layer."""
        seconds: dict[str, float] = {}
        for play in self.plays:
            layer = str(play["layer"])
            seconds[layer] = seconds.get(layer, 0.0) + float(str(play["seconds"]))
        return seconds

    def executions(self, *layers: str) -> dict[str, int]:
        """Return module executions per host, those of ``layers`` alone when any are named."""
        total: dict[str, int] = {}
        for play in self.plays:
            if layers and play["layer"] not in layers:
                continue
            counts = play["executions"]
            assert isinstance(counts, dict)
            for host, count in counts.items():
                total[host] = total.get(host, 0) + count
        return total


def run(playbook: str, *options: str, log: Path | None = None, limit: float = 3000, quiet: bool = False) -> Outcome:
    """Run ``playbook`` (a name in playbooks/, or a path) on inventories/lab.

    :param log: also append the output to this file.
    :param limit: seconds; a run that takes longer is ended.
    :param quiet: do not show the output.
    """
    path = playbook if "/" in playbook else f"playbooks/{playbook}"
    with tempfile.TemporaryDirectory() as work:
        cost = Path(work) / "cost.json"
        environ = {
            **os.environ,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(TOP / "tools" / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "cost",
            "COST_FILE": str(cost),
            "PYTHONUNBUFFERED": "1",
        }
        argv = [str(Path(sys.executable).parent / "ansible-playbook"), "-i", "inventories/lab", path, *options]
        began = time.monotonic()
        lines: list[str] = []
        process = subprocess.Popen(
            ["timeout", "--kill-after=30", str(int(limit)), *argv],
            cwd=TOP,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if not quiet:
                print(line, end="", flush=True)
        rc = process.wait()
        output = "".join(lines)
        if log is not None:
            with log.open("a") as stream:
                stream.write(f"\n$ ansible-playbook {path} {' '.join(options)}\n{output}")
        hosts = {found[0]: Recap(int(found[2]), int(found[3]) + int(found[4])) for found in RECAP.findall(output)}
        plays = json.loads(cost.read_text()) if cost.exists() else []
    return Outcome(rc, output, time.monotonic() - began, hosts, plays)
