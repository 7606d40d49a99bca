# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module documents is what it takes: documentation and argument specification are written apart."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils._secrets import NO_TEXT

TOP = Path(__file__).resolve().parents[2]
PLUGINS = "ansible_collections.personal.cluster.plugins"
MODULES = sorted(file.stem for file in (TOP / "plugins/modules").glob("*.py"))
SECRET = yaml.safe_load("0123456701234567")
FIELDS = ("type", "elements", "choices", "default")


class Taken(Exception):
    """Carries the argument specification out of a module's main()."""


def documented(name: str) -> dict[str, Any]:
    """Return the documented options of a module, those of its fragments included."""
    said = yaml.safe_load(importlib.import_module(f"{PLUGINS}.modules.{name}").DOCUMENTATION)
    fragments = said.get("extends_documentation_fragment", [])
    options: dict[str, Any] = {}
    for fragment in [fragments] if isinstance(fragments, str) else fragments:
        module = importlib.import_module(f"{PLUGINS}.doc_fragments.{fragment.split('.')[-1]}")
        options |= yaml.safe_load(module.ModuleDocFragment.DOCUMENTATION).get("options", {})
    options |= said.get("options", {})
    return options


def comparable(options: dict[str, Any], below: str) -> dict[str, Any]:
    """Return options as far as documentation and specification both tell it."""
    return {
        name: {
            **{field: item[field] for field in FIELDS if field in item},
            "required": item.get("required", False),
            "below": comparable(item.get(below, {}), below),
        }
        for name, item in options.items()
    }


@pytest.mark.parametrize("name", MODULES)
def test_documented_options_are_those_that_are_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def take(_module: AnsibleModule, argument_spec: dict[str, Any], **_more: Any) -> None:
        raise Taken(argument_spec)

    monkeypatch.setattr(AnsibleModule, "__init__", take)
    with pytest.raises(Taken) as taken:
        importlib.import_module(f"{PLUGINS}.modules.{name}").main()
    assert comparable(documented(name), "suboptions") == comparable(taken.value.args[0], "options")


@pytest.mark.parametrize(
    "more", [{"devices": ["/dev/x"]}, {"format": "x"}, {"policy": {"tang": ["http://t"]}}, {"unknown": "a"}]
)
def test_a_parameter_of_a_wrong_type_gives_no_secret_away(more: dict[str, Any]) -> None:
    secrets = {"passphrase": "open sesame", "recovery_key": "kept elsewhere"}
    output = refused_by("luks_clevis_bind", {"devices": [], **secrets, **more})
    assert not any(secret in output for secret in secrets.values())


@pytest.mark.parametrize(
    ("name", "place", "args"),
    [
        ("luks_clevis_bind", "passphrase", {"devices": [], "passphrase": SECRET}),
        ("luks_clevis_bind", "recovery_key", {"devices": [], "recovery_key": SECRET}),
        ("luks_clevis_info", "passphrase", {"devices": [], "passphrase": SECRET}),
        ("luks_escrow", "passphrase", {"path": "/x", "passphrase": SECRET, "headers": []}),
        ("luks_escrow", "secrets", {"path": "/x", "passphrase": "a", "headers": [], "secrets": {"a": SECRET}}),
        ("borg_repo", "passphrase", {"repositories": [{"path": "/x", "passphrase": SECRET}]}),
        ("config_files", "secret_content", {"files": [{"path": "/x", "secret_content": SECRET}]}),
    ],
)
def test_a_secret_that_is_no_text_is_refused(name: str, place: str, args: dict[str, Any]) -> None:
    output = refused_by(name, args)
    assert json.loads(output)["msg"] == f"{place}: {NO_TEXT}; put it in quotes"
    assert str(SECRET) not in output


def refused_by(name: str, args: dict[str, Any]) -> str:
    """Return all that a module says, which fails."""
    done = subprocess.run(
        [sys.executable, TOP / f"plugins/modules/{name}.py"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": args}),
        env={**os.environ, "PYTHONPATH": str(TOP / ".build/collections")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)["failed"]
    return done.stdout + done.stderr
