# SPDX-License-Identifier: GPL-3.0-or-later
"""GlusterFS's command line, asked for XML.

The CLI's exit code says nothing in XML mode: ``opRet`` does. What is no XML is a usage error, a
time limit, or a daemon that does not answer.
"""

from __future__ import annotations

import os
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

# Seconds that gluster waits for glusterd: by itself 120, and adding bricks to a busy pool of six takes longer.
ANSWER_LIMIT = 300
CLI_LIMIT = ANSWER_LIMIT + 60.0
# At every call the CLI starts a Python to learn whether geo-replication is there: four of the five seconds that a call
# takes on a slow machine. The wrapper that starts it lets PYTHON name another interpreter.
WITHOUT_GEOREPLICATION = {"PYTHON": "/bin/true"}
POLL = 1.0
NO_DAEMON = "Connection failed"
TOO_LATE = "Request timed out"
BUSY = ("Another transaction", "Locking failed", "Locking volume", "lock timed out")
# Options that every module of this backend takes: which glusterd to ask.
OPTIONS: dict[str, Any] = {
    "local_host": {"type": "str", "default": ""},
    "glusterd_sock": {"type": "path"},
    "glusterd_workdir": {"type": "path", "default": "/var/lib/glusterd"},
}


class Cli:
    """The gluster command, talking to one glusterd.

    :param workdir: glusterd's working directory; says whether glusterd was ever used here.
    :param sock: glusterd's socket; empty for the usual one.
    :param timeout: seconds for which a busy cluster (another transaction holds the lock) is asked again.
    """

    def __init__(self, run: Run, workdir: str, sock: str, timeout: float) -> None:
        self._run = run
        self.workdir = workdir
        place = [f"--glusterd-sock={sock}"] if sock else []
        self._words = ["gluster", *place, f"--timeout={ANSWER_LIMIT}", "--mode=script", "--xml"]
        self.timeout = timeout

    def __call__(self, *words: str) -> ET.Element:
        """Return the root of the answer to ``words``.

        :raises NotYet: glusterd is not there and never was used.
        :raises ClusterError: what gluster said.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            root = self._ask(words)
            if root.findtext("opRet") in (None, "0"):
                return root
            said = " ".join((root.findtext("opErrstr") or root.findtext("output") or "no reason given").split())
            if not any(word in said for word in BUSY) or time.monotonic() > deadline:
                raise ClusterError(f"gluster {' '.join(words[:3])}: {said}")
            time.sleep(POLL)

    def heal(self, volume: str) -> None:
        """Have the self-heal daemons look at a volume now; by themselves they do so every ten minutes.

        Gluster answers this one in plain text, asked for XML or not. A look that it refuses just now is asked for again
        by whoever waits.
        """
        argv = [*self._words, "volume", "heal", volume]
        self._run(argv, timeout=CLI_LIMIT, ok=None, env=WITHOUT_GEOREPLICATION)

    def _ask(self, words: Sequence[str]) -> ET.Element:
        try:
            done = self._run([*self._words, *words], timeout=CLI_LIMIT, ok=None, env=WITHOUT_GEOREPLICATION)
        except NotYet as error:
            raise self._absent(str(error)) from error
        try:
            return ET.fromstring(done.stdout)
        except ET.ParseError as error:
            said = " ".join((done.stdout + " " + done.stderr).split())[:500]
            if NO_DAEMON in said:
                raise self._absent("glusterd does not answer") from error
            if TOO_LATE in said:
                said = (
                    f"no answer within {ANSWER_LIMIT} s; the pool may still be at work on it, run again; "
                    "if it stays so, restart glusterd on the node on which 'gluster pool list' gives no answer"
                )
            raise ClusterError(f"gluster {' '.join(words[:3])}: {said or 'no answer'}") from error

    def _absent(self, what: str) -> ClusterError:
        if os.path.exists(os.path.join(self.workdir, "glusterd.info")):
            return ClusterError(
                f"{what}, though it was used on this host before; see systemctl status glusterd.service"
            )
        return NotYet(f"{what} and was never used on this host")


def from_params(run: Run, given: Mapping[str, Any]) -> Cli:
    """Return the command line that a module's parameters mean."""
    return Cli(run, given["glusterd_workdir"], given["glusterd_sock"] or "", given["timeout"])
