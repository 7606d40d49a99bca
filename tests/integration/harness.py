# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of this collection for real, on this machine, exactly as a playbook would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]


def run_module(
    name: str, params: dict[str, Any], *, check: bool = False, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the result of module ``name``; ``failed`` is set in it when the module failed.

    :param name: short name (``ovs_vlan``) or FQCN.
    :param check: run in check mode.
    :param env: environment variables of the module.
    """
    fqcn = name if "." in name else f"personal.cluster.{name}"
    ansible = shutil.which("ansible", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert ansible, "ansible is not installed beside this Python"
    argv = [ansible, "localhost", "-i", "localhost,", "-c", "local", "-m", fqcn, "-a", json.dumps(params), "--diff"]
    argv += ["-e", json.dumps({"ansible_python_interpreter": "/usr/bin/python3", "ansible_become": False})]
    argv += ["--check"] if check else []
    environ = {
        **os.environ,
        **(env or {}),
        "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "true",
        "ANSIBLE_STDOUT_CALLBACK": "ansible.posix.json",
    }
    done = subprocess.run(
        argv, cwd=TOP, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, env=environ, check=False
    )
    start = done.stdout.find("{")
    assert start >= 0, done.stdout + done.stderr
    report = json.loads(done.stdout[start:])
    result: dict[str, Any] = report["plays"][0]["tasks"][0]["hosts"]["localhost"]
    return result
