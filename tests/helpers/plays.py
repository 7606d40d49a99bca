# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks and roles as files, and what Ansible makes of the expressions in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

REPOSITORY = Path(__file__).parents[2]


def read(path: str) -> Any:
    """Return what a YAML file of the repository holds."""
    return yaml.safe_load((REPOSITORY / path).read_text())


def plays_of(playbook: str) -> list[dict[str, Any]]:
    """Return the plays of a playbook."""
    plays: list[dict[str, Any]] = read(f"playbooks/{playbook}.yml")
    return plays


def tasks_of(playbook: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield every task of a playbook after its play: those of its blocks, and of the files that it imports, too."""
    for play in plays_of(playbook):
        for section in ("pre_tasks", "tasks", "post_tasks"):
            for task in flat(play.get(section, ())):
                yield play, task


def flat(tasks: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield tasks, those of blocks and of imported files in the place of these, with the variables of the import."""
    for task in tasks:
        if "ansible.builtin.import_tasks" in task:
            given = task.get("vars", {})
            for imported in flat(read(f"playbooks/{task['ansible.builtin.import_tasks']}")):
                yield {**imported, "vars": {**given, **imported["vars"]}} if given else imported
        elif "block" in task:
            yield from flat([*task["block"], *task.get("rescue", ()), *task.get("always", ())])
        else:
            yield task


def task_of(playbook: str, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the play and the task of that name; a file of tasks may be imported more than once."""
    first, *others = [(play, task) for play, task in tasks_of(playbook) if task.get("name") == name]
    assert all(other == first for other in others), name
    return first


def variables_of(play: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that a play declares or reads from files."""
    files = [read(f"playbooks/{name}") for name in play.get("vars_files", ())]
    return {name: value for file in (*files, play.get("vars", {})) for name, value in file.items()}


def trusted(value: Any) -> Any:
    """Return variables as Ansible has them of an inventory: what is text in them may be a template."""
    if isinstance(value, dict):
        return {name: trusted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


def templated(value: Any, declared: dict[str, Any], **known: Any) -> Any:
    """Return a value with its templates filled in.

    :param declared: variables that may be templates themselves.
    :param known: variables that are data.
    """
    return Templar(loader=DataLoader(), variables=trusted(declared) | known).template(trusted(value))


def holds(condition: Any, declared: dict[str, Any], **known: Any) -> bool:
    """Tell whether a condition of a task is true, or each of several."""
    conditions = condition if isinstance(condition, list) else [condition]
    return all(templated(f"{{{{ {text} }}}}", declared, **known) for text in conditions)


def value_of(playbook: str, task: str, key: str, **known: Any) -> Any:
    """Return what an argument of a task's module becomes on node1; without ``key``, what all of them become."""
    play, found = task_of(playbook, task)
    declared = variables_of(play) | found.get("vars", {})
    known = {"inventory_hostname": "node1", **known}
    module = next(value for name, value in found.items() if name.startswith(("ansible.builtin.", "personal.cluster.")))
    value = module[key] if key else module
    return holds(value, declared, **known) if key == "that" else templated(value, declared, **known)


def refusal(playbook: str, task: str, **known: Any) -> str:
    """Return what a playbook says when it refuses to go on at a task; nothing when it goes on."""
    if value_of(playbook, task, "that", **known):
        return ""
    text: str = value_of(playbook, task, "fail_msg", **known)
    return text
