# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may import whom: modules -> backends, engine -> run, errors; backends know no module and not each other.

A backend is a file or a package. Every file that a module imports is sent to the node and compiled there: the files
of a package import each other without cycles, and its ``__init__.py`` imports nothing.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
UTILS = "ansible_collections.personal.cluster.plugins.module_utils."
FOLDER = TOP / "plugins/module_utils/_backends"
BACKENDS = sorted(file for file in FOLDER.rglob("*.py") if file.stem != "__init__")
PACKAGES = sorted(file.parent for file in FOLDER.glob("*/__init__.py"))
MODULES = sorted((TOP / "plugins/modules").glob("*.py"))


def ours(file: Path) -> set[str]:
    """Return the names below module_utils that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names.update(name[len(UTILS) :] for name in full if name.startswith(UTILS))
    return names


def backend(file: Path) -> str:
    """Return the name of the backend that a file is, or is a part of."""
    return file.relative_to(FOLDER).parts[0].removesuffix(".py")


def label(file: Path) -> str:
    return ".".join(file.relative_to(TOP / "plugins").with_suffix("").parts[1:])


def calls(file: Path) -> set[str]:
    tree = ast.walk(ast.parse(file.read_text()))
    return {node.func.attr for node in tree if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}


@pytest.mark.parametrize("file", BACKENDS, ids=label)
def test_a_backend_imports_no_other_backend(file: Path) -> None:
    assert not [
        name for name in ours(file) if f"{name}.".startswith("_backends.") and name.split(".")[1] != backend(file)
    ]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_the_files_of_a_backend_import_each_other_in_one_direction(package: Path) -> None:
    files = {file.stem: file for file in package.glob("*.py") if file.stem != "__init__"}
    prefix = f"_backends.{package.name}."
    below = {
        stem: {name[len(prefix) :].split(".")[0] for name in ours(file) if name.startswith(prefix)}
        for stem, file in files.items()
    }
    # Raises where there is a cycle.
    assert set(TopologicalSorter(below).static_order()) == set(files)


def test_a_package_imports_nothing_by_itself() -> None:
    assert [path for path in FOLDER.rglob("__init__.py") if path.read_text()] == []


@pytest.mark.parametrize("name", ["_engine", "_run", "_lock", "_durable", "_errors"])
def test_the_core_knows_no_backend(name: str) -> None:
    assert not [found for found in ours(TOP / f"plugins/module_utils/{name}.py") if found.startswith("_backends")]


@pytest.mark.parametrize("file", MODULES + BACKENDS, ids=label)
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
