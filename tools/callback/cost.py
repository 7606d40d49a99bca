# SPDX-License-Identifier: GPL-3.0-or-later
"""Callback that writes what each play cost: wall time and module executions per host, as JSON to $COST_FILE."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: cost
type: aggregate
short_description: what each play costs
description: Writes the wall time and the module executions per host of each play to the file that COST_FILE names.
"""

# These run on the controller alone.
FREE = {
    "ansible.builtin." + name
    for name in (
        "assert",
        "debug",
        "fail",
        "set_fact",
        "meta",
        "include_tasks",
        "import_tasks",
        "include_role",
        "pause",
    )
} | {"personal.cluster.preflight", "ansible.builtin.validate_argument_spec", "ansible.builtin.add_host"}


class CallbackModule(CallbackBase):
    """Counts."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "cost"

    def __init__(self) -> None:
        super().__init__()
        self._plays: list[dict[str, Any]] = []

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Begin the account of a play."""
        self._close()
        self._plays.append({"layer": (list(play.tags) or [play.get_name()])[0], "began": time.time(), "executions": {}})

    def v2_runner_on_ok(self, result: Any) -> None:
        """Count one execution on the host that really ran it."""
        self._count(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Count a failed execution too."""
        self._count(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the account."""
        self._close()
        Path(os.environ["COST_FILE"]).write_text(json.dumps(self._plays, indent=1))

    def _count(self, result: Any) -> None:
        task, data = result.task, result.result
        delegated = data.get("_ansible_delegated_vars", {}).get("ansible_delegated_host")
        host = delegated or result.host.get_name()
        if task.resolved_action in FREE or host == "localhost":
            return
        times = len(data["results"]) if "results" in data and task.loop else 1
        executions = self._plays[-1]["executions"]
        executions[host] = executions.get(host, 0) + times

    def _close(self) -> None:
        if self._plays and "seconds" not in self._plays[-1]:
            self._plays[-1]["seconds"] = time.time() - self._plays[-1].pop("began")
