# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a module of this collection for real, on this machine, exactly as a playbook would."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TOP = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)\s+unreachable=\d+\s+failed=(\d+)", re.MULTILINE)
# A tool that does what it is told to, and MORE when it is called with WORDS among its arguments for the time NUMBER.
INTERPOSED = """#!/bin/bash
count=0
if [[ " $* " =~ $WORDS ]]; then
    echo >> "$COUNTER"
    count=$(wc -l < "$COUNTER")
fi
if [ "$count" = "$NUMBER" ]; then
    eval "$MORE"
fi
exec "$REAL" "$@"
"""


def needs(*tools: str) -> None:
    """End the collection with one sentence unless these tools are installed and root runs the tests.

    A skipped file would look like a passed one.

    :raises RuntimeError: naming what is missing and the remedy.
    """
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        what = f"{', '.join(missing)} missing" if missing else "not root"
        raise RuntimeError(f"{what}: run 'make integration', which installs the tools and asks for sudo")


def run_module(
    name: str,
    params: dict[str, Any],
    *,
    check: bool = False,
    env: dict[str, str] | None = None,
    interpreter: str = "/usr/bin/python3",
) -> dict[str, Any]:
    """Return the result of module ``name``; ``failed`` is set in it when the module failed.

    :param name: short name (``ovs_vlan``) or FQCN.
    :param check: run in check mode.
    :param env: environment variables of the module.
    :param interpreter: the Python that runs the module.
    """
    fqcn = name if "." in name else f"personal.cluster.{name}"
    environ = {**os.environ, **(env or {}), "ANSIBLE_CONFIG": str(TOP / "ansible.cfg")}
    with tempfile.TemporaryDirectory() as work:
        argv = [str(Path(sys.executable).parent / "ansible"), "localhost", "-i", "localhost,", "-c", "local"]
        argv += ["-m", fqcn, "-a", json.dumps(params) if params else "", "--diff", "--tree", work]
        argv += ["-e", json.dumps({"ansible_python_interpreter": interpreter})]
        argv += ["--check"] if check else []
        done = subprocess.run(
            argv,
            cwd=TOP,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            env=environ,
            check=False,
        )
        file = Path(work) / "localhost"
        assert file.exists(), done.stdout + done.stderr
        result: dict[str, Any] = json.loads(file.read_text())
        if done.returncode:
            result["failed"] = True
    return result


def interposed(folder: Path, tool: str, words: str, number: int, more: str) -> dict[str, str]:
    """Return an environment in which ``tool`` does more, a line of bash, at the call ``number`` of those that count.

    :param words: a regular expression of bash's that finds the arguments of these calls, with a blank around each.
    """
    real = shutil.which(tool)
    assert real
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    counter = folder / "counter"
    counter.unlink(missing_ok=True)
    path = place / tool
    path.write_text(INTERPOSED)
    path.chmod(0o755)
    environ = {"WORDS": words, "NUMBER": str(number), "MORE": more, "COUNTER": str(counter), "REAL": real}
    return {"PATH": f"{place}:{os.environ['PATH']}", **environ}


def direct(
    name: str, params: dict[str, Any], *, check: bool = False, env: dict[str, str] | None = None
) -> dict[str, Any]:
    """Return the result of module ``name`` run without Ansible around it: the same code in a fifth of the time.

    It is ``killed`` alone when the module was.
    """
    told = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_module_name": f"personal.cluster.{name}"}
    args = {"ANSIBLE_MODULE_ARGS": {**params, **told}}
    done = subprocess.run(
        [sys.executable, TOP / "plugins" / "modules" / f"{name}.py"],
        input=json.dumps(args),
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(TOP / ".build" / "collections"), **(env or {})},
        check=False,
    )
    if done.returncode == -signal.SIGKILL:
        return {"killed": True}
    assert done.stdout.strip(), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def playbook_argv(name: str, inventory: Path, mounts: dict[Path, str], *options: str) -> list[str]:
    """Return the command that runs a playbook of this collection on hosts that are this computer.

    :param mounts: directories that lie over those of this computer meanwhile, and for the playbook alone.
    """
    shell = "".join(f"mount --bind '{over}' {place} && " for over, place in mounts.items()) + 'exec "$@"'
    program = str(Path(sys.executable).parent / "ansible-playbook")
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", shell, "sh", program]
    return [*argv, str(TOP / f"playbooks/{name}.yml"), "-i", str(inventory), "--diff", *options]


def play(argv: list[str]) -> tuple[int, str, dict[str, int]]:
    """Return exit code, output, and how many tasks changed something on each host."""
    done = subprocess.run(
        argv,
        cwd=TOP,
        env={**os.environ, "ANSIBLE_CONFIG": str(TOP / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, {row[0]: int(row[1]) for row in RECAP.findall(done.stdout)}
