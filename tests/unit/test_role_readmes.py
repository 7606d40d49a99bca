# SPDX-License-Identifier: GPL-3.0-or-later
"""The READMEs of roles are written from their specifications, and checked against them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]
TOOL = TOP / "tools" / "role_readmes.py"
DESCRIBED = sorted([*TOP.glob("roles/*/meta/argument_specs.yml"), *TOP.glob("plugins/modules/*.py")])
SPEC = """
argument_specs:
  main:
    short_description: Does things
    description: [Writes C(/etc/x)., Twice.]
    options:
      demo_list:
        description: Things | others.
        type: list
        elements: dict
        default: []
        options:
          name:
            description: The name.
            required: true
      demo_mode:
        description: How.
        choices: [a, b]
        default: a
      demo_place:
        description: Where.
"""


@pytest.fixture
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("role_readmes", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["role_readmes"] = module
    spec.loader.exec_module(module)
    return module


PLAYBOOK = """
- hosts: all
  vars_files: [vars/things.yml]
  roles:
    - role: personal.cluster.demo
      vars:
        demo_list: "{{ cluster_things }}"
        __demo: 1
    - role: personal.cluster.other
      vars:
        demo_mode: b
- import_playbook: other.yml
"""


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    roles = tmp_path / "roles"
    for part in ("meta", "defaults"):
        (roles / "demo" / part).mkdir(parents=True)
    (roles / "demo" / "meta" / "argument_specs.yml").write_text(SPEC)
    (roles / "demo" / "defaults" / "main.yml").write_text("demo_list: []\ndemo_mode: a\n")
    return roles


def test_says_what_a_playbook_sets_and_the_inventory_cannot(tool: ModuleType, roles: Path) -> None:
    (roles.parent / "playbooks" / "vars").mkdir(parents=True)
    (roles.parent / "playbooks" / "things.yml").write_text(PLAYBOOK)
    (roles.parent / "playbooks" / "vars" / "things.yml").write_text("demo_place: here\n")
    assert tool.main([str(roles)]) == 0
    text = (roles / "demo" / "README.md").read_text()
    assert "| `demo_place` | str |  | Where. Set by `playbooks/things.yml`, whatever the inventory says. |" in text
    assert "| Things \\| others. Set by `playbooks/things.yml`, whatever the inventory says. |" in text
    assert "| `demo_list[].name` | str | required | The name. |" in text
    assert "| `demo_mode` | str | `a` | How. One of `a`, `b`. |" in text


def test_names_the_playbook_of_the_layer_first(tool: ModuleType, roles: Path) -> None:
    playbooks = roles.parent / "playbooks"
    (playbooks / "vars").mkdir(parents=True)
    (playbooks / "vars" / "things.yml").write_text("demo_place: here\n")
    for name in ("aaa", "demo", "things"):
        (playbooks / f"{name}.yml").write_text(PLAYBOOK)
    assert tool.main([str(roles)]) == 0
    assert "Where. Set by `playbooks/demo.yml`, whatever" in (roles / "demo" / "README.md").read_text()


def test_writes_every_option(tool: ModuleType, roles: Path) -> None:
    assert tool.main([str(roles)]) == 0
    text = (roles / "demo" / "README.md").read_text()
    assert "# personal.cluster.demo" in text
    assert "Writes `/etc/x`." in text
    assert "| `demo_list` | list of dict | `[]` | Things \\| others. |" in text
    assert "| `demo_list[].name` | str | required | The name. |" in text
    assert "| `demo_mode` | str | `a` | How. One of `a`, `b`. |" in text


def test_check_writes_nothing_and_complains(tool: ModuleType, roles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--check", str(roles)]) == 1
    assert not (roles / "demo" / "README.md").exists()
    assert "README.md is out of date" in capsys.readouterr().err
    tool.main([str(roles)])
    assert tool.main(["--check", str(roles)]) == 0


@pytest.mark.parametrize(
    ("defaults", "complaint"),
    [
        ("demo_list: []\ndemo_mode: b\n", "default of demo_mode is 'a' in the specification, 'b' in fact"),
        ("demo_list: []\n", "demo_mode has a default in meta/argument_specs.yml but none"),
        ("demo_list: []\ndemo_mode: a\ndemo_more: 1\n", "demo_more is in defaults/main.yml but not in"),
    ],
)
def test_defaults_that_disagree(
    tool: ModuleType, roles: Path, capsys: pytest.CaptureFixture[str], defaults: str, complaint: str
) -> None:
    tool.main([str(roles)])
    (roles / "demo" / "defaults" / "main.yml").write_text(defaults)
    assert tool.main(["--check", str(roles)]) == 1
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("file", DESCRIBED, ids=lambda file: str(file.relative_to(TOP)))
def test_markup_has_no_parenthesis_in_it(file: Path) -> None:
    """It ends at the first one that closes, here and for ansible-doc."""
    text = " ".join(file.read_text().split())
    assert re.findall(r"(?<![A-Za-z])(?:RV|[BCEILMOPUV])\([^()]*\([^)]*\)", text) == []
