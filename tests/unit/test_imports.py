# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom: modules -> backends, engine -> run, errors; backends know no module and not each other."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
UTILS = "ansible_collections.personal.cluster.plugins.module_utils."
BACKENDS = sorted(file for file in (TOP / "plugins/module_utils/_backends").glob("*.py") if file.stem != "__init__")
MODULES = sorted((TOP / "plugins/modules").glob("*.py"))


def ours(file: Path) -> set[str]:
    """Return the names below module_utils that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(name[len(UTILS) :] for name in full if name.startswith(UTILS))
    return names


def calls(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text()))
    return {node.func.attr for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}


@pytest.mark.parametrize("file", BACKENDS, ids=lambda file: file.stem)
def test_a_backend_imports_no_other_backend(file: Path) -> None:
    assert not [name for name in ours(file) if name.startswith("_backends.")]


@pytest.mark.parametrize("name", ["_engine", "_run", "_errors"])
def test_the_core_knows_no_backend(name: str) -> None:
    assert not [found for found in ours(TOP / f"plugins/module_utils/{name}.py") if found.startswith("_backends")]


@pytest.mark.parametrize("file", MODULES + BACKENDS, ids=lambda file: file.stem)
def test_only_the_engine_ends_a_module(file: Path) -> None:
    assert not calls(file) & {"exit_json", "fail_json"}


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_a_module_is_documented_and_supports_check_mode(file: Path) -> None:
    text = file.read_text()
    assert all(word in text for word in ("DOCUMENTATION", "EXAMPLES", "RETURN", "supports_check_mode=True"))


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.stem)
def test_a_module_that_takes_secrets_keeps_its_invocation_out_of_the_journal(file: Path) -> None:
    text = file.read_text()
    assert ("_engine.SecretModule(" in text) == ('"no_log": True' in text)
