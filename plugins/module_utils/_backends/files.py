# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, managed blocks, directories and links: read all, write only what differs, each atomically."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

DEFAULT_MODES = {"file": 0o644, "block": 0o644, "directory": 0o755}


@dataclass(frozen=True)
class Entry:
    """One path as it is or shall be; ``kind`` is file, directory, link, other or absent."""

    kind: str
    content: str = ""
    owner: str = ""
    group: str = ""
    mode: int = 0


ABSENT = Entry("absent")
State = Mapping[str, Entry]


def _name_of(number: int, lookup: Any) -> str:
    try:
        return str(lookup(number)[0])
    except KeyError:
        return str(number)


def read_entry(path: str) -> Entry:
    """Return what stands at ``path``; links are not followed."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ABSENT
    if stat.S_ISLNK(found.st_mode):
        return Entry("link", os.readlink(path))
    about = (_name_of(found.st_uid, pwd.getpwuid), _name_of(found.st_gid, grp.getgrgid), stat.S_IMODE(found.st_mode))
    if stat.S_ISDIR(found.st_mode):
        return Entry("directory", "", *about)
    if not stat.S_ISREG(found.st_mode):
        return Entry("other", "", *about)
    return Entry("file", Path(path).read_text(errors="surrogateescape"), *about)


def with_block(text: str, name: str, content: str) -> str:
    """Return ``text`` with the lines between the markers of block ``name`` replaced, or appended.

    :raises ClusterError: one marker is missing or there twice: where the block ends cannot be known.
    """
    begin, end = f"# BEGIN {name}", f"# END {name}"
    body = content if content.endswith("\n") or not content else content + "\n"
    block = f"{begin}\n{body}{end}\n"
    lines = text.splitlines(keepends=True)
    marks = [line.rstrip("\n") for line in lines]
    if [mark for mark in marks if mark in (begin, end)] == [begin, end]:
        return "".join(lines[: marks.index(begin)]) + block + "".join(lines[marks.index(end) + 1 :])
    if begin in marks or end in marks:
        raise ClusterError(f"there is not one line '{begin}' followed by one line '{end}'; mend or remove what is left")
    return text + ("\n" if text and not text.endswith("\n") else "") + block


def _text(item: Mapping[str, Any]) -> str:
    return str(item["content"] if item["content"] is not None else item["secret_content"])


def _mode(item: Mapping[str, Any], current: Entry) -> int:
    if item["mode"] is not None:
        return int(item["mode"], 8)
    if item["state"] == "block" and current.kind == "file":
        return current.mode
    return DEFAULT_MODES[item["state"]]


def desired_entry(item: Mapping[str, Any], current: Entry) -> Entry:
    """Return what shall stand at the path of ``item``."""
    kind = item["state"]
    if kind == "absent":
        return ABSENT
    if kind == "link":
        return Entry("link", item["target"])
    if kind == "block":
        base = current.content if current.kind == "file" else ""
        try:
            content = with_block(base, item["block"], _text(item))
        except ClusterError as error:
            raise ClusterError(f"{item['path']}: {error}") from error
        owner, group = (current.owner, current.group) if current.kind == "file" else (item["owner"], item["group"])
        return Entry("file", content, owner, group, _mode(item, current))
    content = _text(item) if kind == "file" else ""
    return Entry(kind, content, item["owner"], item["group"], _mode(item, current))


def _sentence(path: str, current: Entry, desired: Entry) -> str:
    if desired.kind == "absent":
        return f"remove {path}"
    if current.kind == "absent":
        return f"create {desired.kind} {path}"
    if current.kind != desired.kind:
        return f"replace {current.kind} {path} by a {desired.kind}"
    if current.content != desired.content:
        return f"change {path}"
    return f"set owner and mode of {path} to {desired.owner}:{desired.group} {desired.mode:04o}"


class Files:
    """All files of a layer; see the module config_files for the items."""

    def __init__(self, items: list[dict[str, Any]], run: Run) -> None:
        self._items = items
        self._run = run
        self._key = os.urandom(16)
        self._written: list[str] = []

    def read(self) -> State:
        """Read every path once."""
        return {item["path"]: read_entry(item["path"]) for item in self._items}

    def blank(self) -> State:
        """Return a host without any of the paths."""
        return {item["path"]: ABSENT for item in self._items}

    def plan(self, state: State) -> Plan[State]:
        """Compare each path in turn; a path may be named twice, for two blocks."""
        now = dict(state)
        plan: Plan[State] = Plan(now)
        for item in self._items:
            path, current = item["path"], now[item["path"]]
            desired = desired_entry(item, current)
            if current == desired:
                continue
            refusal = self._refusal(item, current, desired)
            if refusal:
                plan.refusals.append(refusal)
                continue
            plan.steps.append(Step(_sentence(path, current, desired), partial(self._write, item, current, desired)))
            now[path] = desired
        return plan

    def _refusal(self, item: Mapping[str, Any], current: Entry, desired: Entry) -> Optional[str]:
        path = item["path"]
        if current.kind == "directory" and desired.kind != "directory":
            return f"{path} is a directory; move it away first"
        if current.kind == "other":
            return f"{path} is a device, a socket or a pipe"
        if desired.kind == "directory" and current.kind == "file":
            return f"{path} is a file, wanted is a directory; move it away first"
        return None

    def _write(self, item: Mapping[str, Any], current: Entry, desired: Entry) -> None:
        path = item["path"]
        self._written.append(path)
        if desired.kind == "absent":
            Path(path).unlink()
        elif desired.kind == "directory":
            Path(path).mkdir(parents=True, exist_ok=True)
            self._own(path, desired)
        elif desired.kind == "file" and replace(current, owner="", group="", mode=0) == replace(
            desired, owner="", group="", mode=0
        ):
            self._own(path, desired)
        else:
            self._replace(item, desired)

    def _replace(self, item: Mapping[str, Any], desired: Entry) -> None:
        path = Path(item["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that starts with a dot and carries no known suffix: no daemon reads it as configuration meanwhile.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as work:
            new = Path(work) / path.name
            if desired.kind == "link":
                new.symlink_to(desired.content)
            else:
                with open(os.open(new, os.O_WRONLY | os.O_CREAT, 0o600), "w", errors="surrogateescape") as stream:
                    stream.write(desired.content)
                    stream.flush()
                    os.fsync(stream.fileno())
                self._own(str(new), desired)
                self._validate(item, str(new))
            new.replace(path)

    def _own(self, path: str, desired: Entry) -> None:
        try:
            os.chown(path, pwd.getpwnam(desired.owner).pw_uid, grp.getgrnam(desired.group).gr_gid)
        except KeyError as error:
            raise ClusterError(f"{path}: there is no user {desired.owner} or group {desired.group}") from error
        Path(path).chmod(desired.mode)

    def _validate(self, item: Mapping[str, Any], new: str) -> None:
        if item["validate"]:
            try:
                self._run([new if word == "%s" else word for word in item["validate"]])
            except CommandFailed as error:
                raise ClusterError(
                    f"{item['path']} was left as it is, the new content is not valid: {error}"
                ) from error

    def _digest(self, secret: str) -> str:
        keyed = hashlib.blake2b(secret.encode(errors="surrogateescape"), key=self._key, digest_size=8)
        return f"a secret, {keyed.hexdigest()} in this run"

    def view(self, state: State) -> dict[str, Any]:
        """Return the paths with their content; a digest stands for a secret one, another one in every run."""
        hidden = {item["path"] for item in self._items if item["secret_content"] is not None}
        shown: dict[str, Any] = {}
        for path, entry in state.items():
            content = entry.content
            if path in hidden:
                content = self._digest(content)
            shown[path] = {"state": entry.kind}
            if entry.kind in ("file", "link"):
                shown[path]["content"] = content
            if entry.kind in ("file", "directory"):
                shown[path].update(owner=entry.owner, group=entry.group, mode=f"{entry.mode:04o}")
        return {"files": shown, "written": list(self._written)}
