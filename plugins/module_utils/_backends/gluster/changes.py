# SPDX-License-Identifier: GPL-3.0-or-later
"""The changes that a plan is made of: words for the CLI, and what to wait for after them."""

from __future__ import annotations

import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Union

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.cli import POLL, Cli
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Brick
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.parsing import parse_online
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

# The answer while the process that moves the files begins, or ends.
IN_BETWEEN = "brick op 'Rebalance' failed"


class Action(Protocol):
    """A call that is more than words for the CLI: something to wait for, or to do on this host."""

    def act(self, cli: Cli) -> None:
        """Make it true."""
        ...


Call = Union[tuple[str, ...], Action]


@dataclass(frozen=True)
class Change:
    """A sentence for a person, and the calls that make it true."""

    sentence: str
    calls: tuple[Call, ...]


def work(cli: Cli, calls: Sequence[Call]) -> None:
    """Make the calls in order."""
    for call in calls:
        if isinstance(call, tuple):
            cli(*call)
        else:
            call.act(cli)


def wait(is_over: Callable[[], bool], timeout: float, failure: str, pause: float = POLL, remedy: str = "") -> None:
    """Wait until ``is_over`` is true, ``pause`` seconds between two looks.

    :raises ClusterError: it was not within ``timeout`` seconds; the message is ``failure``, the limit and ``remedy``.
    """
    deadline = time.monotonic() + timeout
    while not is_over():
        if time.monotonic() > deadline:
            raise ClusterError(f"{failure} within {timeout:.0f} s{remedy}")
        time.sleep(pause)


@dataclass(frozen=True)
class Online:
    """Wait until a brick runs."""

    volume: str
    brick: Brick
    timeout: float

    def act(self, cli: Cli) -> None:
        """Wait."""
        failure = f"brick {self.brick} of volume {self.volume} did not start (see its log in /var/log/glusterfs/bricks)"
        wait(lambda: self.brick.key in parse_online(cli("volume", "status", self.volume)), self.timeout, failure)


@dataclass(frozen=True)
class Moved:
    """Wait until a task has ended, as the answer to ``words`` tells, and see that it went well.

    :param remedy: what to do when it did not.
    :param hosts: UUIDs of the hosts each of which must have ended its part without a file that it left behind.
    """

    words: tuple[str, ...]
    timeout: float
    remedy: str
    hosts: frozenset[str] = frozenset()

    def act(self, cli: Cli) -> None:
        """Wait."""
        said = " ".join(("gluster", *self.words))
        answers: list[ET.Element] = []

        def is_over() -> bool:
            try:
                answers.append(cli(*self.words))
            except ClusterError as error:
                if IN_BETWEEN not in str(error):
                    raise
                return False
            return not _runs(answers[-1])

        wait(is_over, self.timeout, f"{said}: not over", remedy="; it goes on, run again to wait for its end")
        problems = task_problems(answers[-1], self.hosts)
        if problems:
            raise ClusterError(f"{said}: {'; '.join(problems)}; {self.remedy}")


def _runs(root: ET.Element) -> bool:
    return any((one.text or "").endswith("in progress") for one in root.iter("statusStr"))


def task_problems(root: ET.Element, hosts: frozenset[str]) -> list[str]:
    """Return what speaks against a task that has ended; see :class:`Moved`."""
    overall = root.find(".//aggregate/statusStr")
    status = "unknown" if overall is None or not overall.text else overall.text
    found = [] if status.endswith("completed") else [f"it is {status}"]
    parts = {node.findtext("id") or "": node for node in root.iter("node")}
    for uuid in sorted(hosts):
        part = parts.get(uuid)
        if part is None or part.findtext("statusStr") != "completed":
            found.append(f"host {uuid} has not ended its part")
        elif (part.findtext("failures"), part.findtext("skipped")) != ("0", "0"):
            found.append(f"files stayed behind on {part.findtext('nodeName')} (see its log /var/log/glusterfs)")
    return found
