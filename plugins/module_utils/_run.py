# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a tool: argv lists only, stable locale, stdin closed, never without a limit."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Protocol

from ansible_collections.personal.cluster.plugins.module_utils._errors import CommandFailed, NotYet

DEFAULT_TIMEOUT = 120.0
REDACTED = "********"


def redact(text: str, secrets: Collection[str]) -> str:
    """Return ``text`` with every secret replaced; longest first, so that no part survives."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, REDACTED)
    return text


@dataclass(frozen=True)
class Completed:
    """What a finished tool left: exit code and both streams as text."""

    rc: int
    stdout: str
    stderr: str


class Run(Protocol):
    """The signature of a runner; tests pass a recording of real tool output."""

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: Optional[str] = None,
        timeout: float = DEFAULT_TIMEOUT,
        ok: Optional[Collection[int]] = (0,),
        env: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        """Run ``argv`` and return what it left behind."""
        ...


class Runner:
    """Runs tools on this host.

    Secrets travel on ``stdin`` or in ``env``, never in ``argv``; those listed in
    ``secrets`` are removed from every error message. ``heirs`` are tools that keep the lock of this run while they
    work, also when the run is killed; never tools that leave a daemon behind.
    """

    def __init__(self, secrets: Collection[str] = (), *, heirs: bool = False) -> None:
        self._secrets = tuple(secrets)
        self._heirs = heirs

    def __call__(
        self,
        argv: Sequence[str],
        *,
        stdin: Optional[str] = None,
        timeout: float = DEFAULT_TIMEOUT,
        ok: Optional[Collection[int]] = (0,),
        env: Optional[Mapping[str, str]] = None,
    ) -> Completed:
        """Run ``argv``.

        :param stdin: text for standard input; without it standard input is closed.
        :param timeout: seconds after which the tool is killed.
        :param ok: exit codes that are no failure; ``None`` accepts every one.
        :param env: additions to the environment.
        :raises NotYet: the tool is not installed.
        :raises CommandFailed: timed out, or an exit code outside ``ok``.
        """
        name = os.path.basename(argv[0])
        environ = {**os.environ, **(env or {}), "LC_ALL": "C", "LANGUAGE": "C"}
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                # Whatever the node's locale: a passphrase is the same everywhere.
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                env=environ,
                check=False,
                # What this process opened by itself is not inherited, but for that lock.
                close_fds=not self._heirs,
            )
        except FileNotFoundError as error:
            raise NotYet(f"{argv[0]} is not installed on this host; run the role of its layer first") from error
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{self._shown(argv)} did not finish within {timeout:.0f} s") from error
        if ok is not None and done.returncode not in ok:
            said = redact((done.stderr or done.stdout).strip()[-2000:], self._secrets)
            raise CommandFailed(
                f"{self._shown(argv)} failed with exit code {done.returncode}: {said or name + ' said nothing'}"
            )
        return Completed(done.returncode, done.stdout, done.stderr)

    def _shown(self, argv: Sequence[str]) -> str:
        return redact(" ".join(argv), self._secrets)
