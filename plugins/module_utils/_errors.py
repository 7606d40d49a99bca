# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception family that a module may end with."""

from __future__ import annotations


class ClusterError(Exception):
    """A failure that an operator can act on.

    The message names the thing (device, volume, bridge, guest) and the remedy.
    """


class Refused(ClusterError):
    """The desired state asks for something unsafe; nothing was changed."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("refused, nothing was changed: " + "; ".join(reasons))
        self.reasons = reasons


class CommandFailed(ClusterError):
    """A tool could not be run, ran too long, or failed."""


class NotYet(ClusterError):
    """The tool or its daemon is not there yet, and nothing on disk says that it ever was used.

    Check mode on a fresh host plans from nothing then; a run fails.
    """
