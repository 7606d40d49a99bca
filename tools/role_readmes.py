# SPDX-License-Identifier: GPL-3.0-or-later
"""Write roles/*/README.md from meta/argument_specs.yml, and compare these with defaults/main.yml.

What the playbooks beside the roles set is marked: it wins over the inventory, where setting it has no effect.

With --check nothing is written; the exit code is 1 when a README is out of date or a default differs.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

HEADER = "<!-- SPDX-License-Identifier: GPL-3.0-or-later -->\n<!-- Written by tools/role_readmes.py; do not edit. -->\n"
MARKUP = re.compile(r"(?<![A-Za-z])[BCEIMOV]\(([^)]*)\)|(?<![A-Za-z])(?:RV|O|P)\(([^)]*)\)")


def plain(text: str) -> str:
    """Return Ansible's documentation markup as Markdown, on one line, safe within a table."""
    shown = MARKUP.sub(lambda match: f"`{match[1] or match[2]}`", " ".join(text.split()))
    return shown.replace("|", "\\|")


def sentences(description: Any) -> list[str]:
    """Return a description, which may be a text or a list of texts, as a list."""
    return [str(item) for item in (description if isinstance(description, list) else [description])]


def kind(option: Mapping[str, Any]) -> str:
    """Return the type of an option as one word or two."""
    name = str(option.get("type", "str"))
    return f"{name} of {option['elements']}" if "elements" in option else name


def default(option: Mapping[str, Any]) -> str:
    """Return the default of an option as YAML on one line."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return ""
    if isinstance(option["default"], (dict, list)) and len(str(option["default"])) > 60:
        return "see `defaults/main.yml`"
    text = yaml.safe_dump(option["default"], default_flow_style=True, width=10_000, allow_unicode=True)
    return "`" + plain(text.removesuffix("...\n").strip()) + "`"


def set_by_playbooks(playbooks: Path, role: str) -> dict[str, str]:
    """Return the variables that playbooks set for a role, each with one that sets it: its layer's if that does."""
    return {
        variable: path.name
        for path in sorted(playbooks.glob("*.yml"), key=lambda path: (path.stem == role, path.name))
        for play in load(path)
        for item in play.get("roles", [])
        if item["role"] == f"personal.cluster.{role}"
        for given in (item.get("vars", {}), *(load(playbooks / file) for file in play.get("vars_files", [])))
        for variable in given
    }


def rows(options: Mapping[str, Any], playbooks: Mapping[str, str], prefix: str = "") -> Iterator[str]:
    """Yield a table row for each option and, below it, for each option inside of it."""
    for name, option in options.items():
        about = " ".join(plain(sentence) for sentence in sentences(option.get("description", "")))
        if option.get("choices"):
            about += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
        if name in playbooks:
            about += f" Set by `playbooks/{playbooks[name]}`, whatever the inventory says."
        yield f"| `{prefix}{name}` | {kind(option)} | {default(option)} | {about} |"
        inner = "[]" if option.get("type") == "list" else ""
        yield from rows(option.get("options", {}), {}, f"{prefix}{name}{inner}.")


def readme(role: str, specs: Mapping[str, Any], playbooks: Mapping[str, str]) -> str:
    """Return the README of a role."""
    parts = [HEADER, f"# personal.cluster.{role}\n"]
    for entry, spec in specs.items():
        if entry != "main":
            parts.append(f"## Entry point `{entry}`\n")
        parts.append(plain(str(spec["short_description"])) + ".\n")
        parts += [plain(sentence) + "\n" for sentence in sentences(spec.get("description", []))]
        if spec.get("options"):
            table = ["| variable | type | default | meaning |", "| --- | --- | --- | --- |"]
            parts.append("\n".join([*table, *rows(spec["options"], playbooks)]) + "\n")
    return "\n".join(parts)


def load(path: Path) -> Any:
    """Return the content of a YAML file, an empty mapping when it is missing or empty."""
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


def differences(role: Path, specs: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each default that the specification and defaults/main.yml disagree about."""
    options = {name: option for spec in specs.values() for name, option in spec.get("options", {}).items()}
    specified = {name: option["default"] for name, option in options.items() if "default" in option}
    actual = load(role / "defaults" / "main.yml")
    for name in sorted({*specified, *actual}):
        if name not in options:
            yield f"{role.name}: {name} is in defaults/main.yml but not in meta/argument_specs.yml"
        elif name not in actual:
            yield f"{role.name}: {name} has a default in meta/argument_specs.yml but none in defaults/main.yml"
        elif name not in specified:
            yield f"{role.name}: {name} has a default in defaults/main.yml but none in meta/argument_specs.yml"
        elif specified[name] != actual[name]:
            wanted, found = specified[name], actual[name]
            yield f"{role.name}: the default of {name} is {wanted!r} in the specification, {found!r} in fact"


def main(argv: list[str]) -> int:
    """Write or check all READMEs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when something is out of date")
    parser.add_argument("roles", nargs="?", type=Path, default=Path(__file__).resolve().parent.parent / "roles")
    arguments = parser.parse_args(argv)
    playbooks = arguments.roles.parent / "playbooks"
    complaints: list[str] = []
    for role in sorted(path.parent.parent for path in arguments.roles.glob("*/meta/argument_specs.yml")):
        specs = load(role / "meta" / "argument_specs.yml")["argument_specs"]
        complaints += differences(role, specs)
        target, text = role / "README.md", readme(role.name, specs, set_by_playbooks(playbooks, role.name))
        if target.exists() and target.read_text() == text:
            continue
        if arguments.check:
            complaints.append(f"{role.name}: README.md is out of date; run tools/role_readmes.py")
        else:
            target.write_text(text)
            print(f"wrote {target}")
    for complaint in complaints:
        print(complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
