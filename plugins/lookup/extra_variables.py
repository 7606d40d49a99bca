# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible lookup: which variables were given on the command line."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible.utils.vars import load_extra_vars

DOCUMENTATION = r"""
name: extra_variables
author: personal.cluster maintainers (@personal-cluster)
version_added: 0.1.0
short_description: Tell which variables were given on the command line
description:
  - Returns the names of the variables that C(-e) gave to C(ansible-playbook), those of C(-e @FILE) among them.
  - An option that is misspelled is a variable like any other, and only here it is seen.
"""

EXAMPLES = r"""
- name: Refuse what is no option of this playbook
  ansible.builtin.assert:
    that: query('personal.cluster.extra_variables') | difference(['vm', 'start']) | length == 0
"""

RETURN = r"""
_list:
  description: The names, sorted.
  type: list
  elements: str
"""


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[Any], variables: Any = None, **kwargs: Any) -> list[str]:
        """Return the names of the variables that the command line gave."""
        return sorted(load_extra_vars(loader=self._loader))
