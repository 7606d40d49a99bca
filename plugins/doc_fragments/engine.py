# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules on the engine promise."""

from __future__ import annotations


class ModuleDocFragment:
    """Attributes of every module that runs on the engine."""

    DOCUMENTATION = r"""
attributes:
  check_mode:
    description: Plans everything and changes nothing; C(actions) lists exactly what the run then does.
    support: full
  diff_mode:
    description: Returns the state before and after, without secrets.
    support: full
  idempotent:
    description:
      - A second run with the same parameters changes nothing.
      - A run that was interrupted is completed by the next one.
    support: full
"""
