# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception that ends a run, or one guest of it."""

from __future__ import annotations


class BackupError(Exception):
    """A failure that an operator can act on; the message names the thing and the remedy."""


class RunsElsewhere(BackupError):
    """The guest is shut off here but somebody has its disk open: another node runs it and backs it up."""
