# SPDX-License-Identifier: GPL-3.0-or-later
"""Safe apply: a change that could cut the host off is undone by a timer unless somebody confirms it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.handover import Handover, route_argv
from ansible_collections.personal.cluster.plugins.module_utils._backends.ovsdb.host import (
    read_text,
    stanza_names,
    write_text,
)
from ansible_collections.personal.cluster.plugins.module_utils._engine import Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

STATE_DIR = "/var/lib/personal-cluster/network"
PROBE_SECONDS = 45


@dataclass(frozen=True)
class Safety:
    """How a change that could cut the host off is made."""

    enabled: bool = True
    seconds: int = 120
    token: str = "unnamed"
    peers: tuple[str, ...] = ()


def script_path(token: str) -> str:
    """Return where the rollback of the change ``token`` waits."""
    return f"{STATE_DIR}/rollback-{token}.sh"


def timer_unit(token: str) -> str:
    """Return the name of the transient unit that runs the rollback of the change ``token``."""
    return f"personal-cluster-network-rollback-{token}"


def rollback_script(
    token: str,
    inverse: list[str],
    backups: dict[str, str],
    handovers: Iterable[Handover],
    held: Iterable[tuple[str, str]],
) -> str:
    """Return the shell program that undoes a change.

    :param inverse: the ``ovs-vsctl`` call that leads back; empty when the switch does not change.
    :param backups: file -> its copy from before the change.
    :param held: interface and address pairs that the interfaces concerned had before.
    """
    lines = [
        "#!/bin/sh",
        "# Undoes a network change that nobody confirmed. Written by personal.cluster.ovs_vlan.",
        '# With the argument "boot" it restores only what outlives a reboot.',
        f"cd {STATE_DIR} || exit 1",
        "# Whoever renames the file first decides: this script undoes, a confirmation keeps.",
        f"mv rollback-{token}.sh undoing-{token}.sh 2>/dev/null || [ -e undoing-{token}.sh ] || exit 0",
        *([shlex.join(inverse)] if inverse else []),
        *(shlex.join(["cp", "-p", copy, path]) for path, copy in sorted(backups.items())),
        'if [ "$1" != boot ]; then',
    ]
    for item in handovers:
        for address in item.addresses:
            lines.append(f"  {shlex.join(['ip', 'address', 'delete', address, 'dev', item.bridge])} 2>/dev/null")
        lines.append("  " + shlex.join(["ip", "link", "set", "dev", item.nic, "up"]))
        if item.stanza:
            lines.append("  " + shlex.join(["ifup", "--force", item.nic]))
    lines += ["  " + shlex.join(["ip", "address", "replace", address, "dev", name]) for name, address in held]
    lines += ["  " + shlex.join(route_argv(route, item.nic)) for item in handovers for route in item.routes]
    # The condition of an if must not be its last command's failure.
    lines += ["  :", "fi", f"mv undoing-{token}.sh rolled-back-{token}.sh", ""]
    return "\n".join(lines)


class SafeApply:
    """The steps around a change that keep the host reachable."""

    def __init__(self, run: Run, safety: Safety) -> None:
        self._run = run
        self._safety = safety
        self._answering: list[str] = []

    def pending(self) -> tuple[str, ...]:
        """Return the changes of earlier runs that nobody confirmed."""
        names = sorted(os.listdir(STATE_DIR)) if os.path.isdir(STATE_DIR) else []
        found = [match[1] for match in (re.fullmatch(r"rollback-(\w+)\.sh", name) for name in names) if match]
        return tuple(token for token in found if token != self._safety.token)

    def keep(self, token: str) -> Step:
        """Return the step that confirms the change of an interrupted run."""

        def apply() -> None:
            # That this run got here at all shows that the host is reachable with the change.
            try:
                os.rename(script_path(token), f"{STATE_DIR}/confirmed.sh")
            except FileNotFoundError as error:
                raise ClusterError("the earlier network change was just rolled back; run again") from error
            # A reboot since then has ended the timer.
            self._run(["systemctl", "stop", timer_unit(token) + ".timer"], ok=None)

        return Step("keep the network change that an interrupted run left unconfirmed", apply)

    def arm(
        self,
        inverse: list[str],
        handovers: list[Handover],
        files: Iterable[str],
        held: list[tuple[str, str]],
    ) -> Step:
        """Return the step that has the host undo the change unless it is confirmed; see :func:`rollback_script`."""
        safety = self._safety
        backups = {path: self._backup(path) for path in files}
        script = rollback_script(safety.token, inverse, backups, handovers, held)

        def apply() -> None:
            os.makedirs(STATE_DIR, mode=0o700, exist_ok=True)
            self._answering = [peer for peer in safety.peers if self._answers(peer)]
            for path, copy in backups.items():
                shutil.copy2(path, copy)
            write_text(script_path(safety.token), script)
            try:
                self._start_timer()
            except ClusterError:
                # Nothing was changed yet, so there is nothing to undo.
                os.unlink(script_path(safety.token))
                raise

        addresses = ", ".join(f"{address} on {name}" for name, address in held)
        return Step(f"arm a rollback within {safety.seconds} s, to keep {addresses}", apply)

    def _start_timer(self) -> None:
        unit, script = timer_unit(self._safety.token), script_path(self._safety.token)
        call = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={self._safety.seconds}s"]
        self._run([*call, "--timer-property=AccuracySec=1s", "/bin/sh", script])
        self._run(["systemctl", "is-active", unit + ".timer"])

    def _backup(self, path: str) -> str:
        return f"{STATE_DIR}/{os.path.basename(path)}.{self._safety.token}"

    def release(self, handovers: list[Handover], files: dict[str, str]) -> list[Step]:
        """Return the steps that take the cards away from ifupdown."""
        nics = [item.nic for item in handovers if item.stanza]

        def apply(path: str, text: str) -> None:
            for nic in nics:
                if nic in stanza_names(read_text(path)):
                    # It may be down already, or never have been up.
                    self._run(["ifdown", "--force", nic], ok=None)
            os.makedirs(STATE_DIR, mode=0o700, exist_ok=True)
            shutil.copy2(path, self._backup(path))
            write_text(path, text, os.stat(path).st_mode & 0o777)

        return [
            Step(f"take {', '.join(nics)} out of {path} (a copy stays in {STATE_DIR})", partial(apply, path, text))
            for path, text in sorted(files.items())
        ]

    def probe(self) -> Step:
        """Return the step that undoes the change when a peer has fallen silent by it."""
        return Step("check that the peers which answered before still answer", self._probe)

    def _probe(self) -> None:
        end = time.monotonic() + PROBE_SECONDS
        silent = self._answering
        while silent and time.monotonic() < end:
            silent = [peer for peer in silent if not self._answers(peer)]
        if silent:
            self._run(["/bin/sh", script_path(self._safety.token)], ok=None)
            raise CommandFailed(
                f"{', '.join(silent)} answered before the change and not after it; rolled back. "
                "Check the cable and the switch port of the bridge's uplink"
            )

    def _answers(self, peer: str) -> bool:
        return self._run(["ping", "-q", "-c", "1", "-W", "1", peer], ok=None).rc == 0
