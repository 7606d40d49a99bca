# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of one volume: which are to be set, and which must not be changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.draft import Draft
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.model import Volume
from ansible_collections.personal.cluster.plugins.module_utils._backends.gluster.options import (
    COMMANDS,
    may_be_purged,
    same,
)

TLS_OPTIONS = ("client.ssl", "server.ssl")
SHARD_OPTIONS = ("features.shard", "features.shard-block-size")
DEFAULTS = {"client.ssl": "off", "server.ssl": "off", "features.shard": "off", "features.shard-block-size": "64MB"}


def plan_options(draft: Draft) -> None:
    """Set what differs with one command; then reset what is not declared, if that is asked for."""
    desired, have = _desired(draft), draft.options
    if desired is None or draft.after is None:
        return
    changed = {name: value for name, value in desired.items() if not same(name, value, have.get(name, "\0"))}
    _check(draft, changed)
    if changed or (draft.state.fresh and draft.wanted.group):
        _set(draft, changed)
    if draft.wanted.options_purge:
        _reset(draft, [name for name in have if name not in desired and may_be_purged(name)])


def _set(draft: Draft, changed: Mapping[str, str]) -> None:
    words = [word for pair in changed.items() for word in pair]
    draft.step(_sentence(draft, changed), ("set", draft.wanted.name, *words))
    _note(draft, {**draft.options, **changed})


def _reset(draft: Draft, undeclared: Sequence[str]) -> None:
    """Reset what nobody declares; gluster takes one option at a time."""
    if not undeclared:
        return
    _check(draft, {name: DEFAULTS[name] for name in undeclared if name in DEFAULTS})
    listed = ", ".join(f"{name} (was {draft.options[name]})" for name in undeclared)
    name = draft.wanted.name
    draft.step(f"reset on volume {name}: {listed}", *(("reset", name, option) for option in undeclared))
    _note(draft, {option: value for option, value in draft.options.items() if option not in undeclared})


def _note(draft: Draft, options: Mapping[str, str]) -> None:
    if draft.after is not None:
        draft.after = replace(draft.after, options=options)


def _desired(draft: Draft) -> Optional[dict[str, str]]:
    """Return group and options together, None when the group has no file."""
    wanted = draft.wanted
    group: Optional[Mapping[str, str]] = {}
    if wanted.group and not draft.state.fresh:
        group = draft.state.groups.get(wanted.group)
        if group is None:
            draft.refuse(f"there is no option group {wanted.group} in glusterd's working directory")
            return None
    return {**(group or {}), **wanted.options}


def _sentence(draft: Draft, changed: Mapping[str, str]) -> str:
    wanted = draft.wanted
    if draft.have is None:
        listed = [f"{name}={value}" for name, value in wanted.options.items()]
        return f"set on volume {wanted.name}: " + ", ".join([f"group {wanted.group}"] * bool(wanted.group) + listed)
    listed = [f"{name}={value} (was {draft.options.get(name, 'not set')})" for name, value in changed.items()]
    return f"set on volume {wanted.name}: " + ", ".join(listed)


def _check(draft: Draft, changed: Mapping[str, str]) -> None:
    have, volume = draft.have, draft.wanted.name
    # This one may be set on a volume that was never started.
    more = {"cluster.granular-entry-heal": "heal"} if have and have.status != "created" else {}
    for name, command in {**COMMANDS, **more}.items():
        if name in changed:
            draft.refuse(f"option {name} is changed with gluster volume {command} {volume}, not here; take it out")
    if have is None:
        return
    real = [name for name in changed if _really_changes(have, name, changed[name])]
    tls = [name for name in real if name in TLS_OPTIONS]
    if tls and have.status == "started":
        draft.refuse(f"changing {', '.join(tls)} cuts off every client; stop the volume first")
    shard = [name for name in real if name in SHARD_OPTIONS]
    if shard and have.status != "created":
        draft.refuse(f"changing {', '.join(shard)} of a volume that may hold data damages it; make a new volume")


def _really_changes(have: Volume, name: str, value: str) -> bool:
    return name in DEFAULTS and not same(name, have.options.get(name, DEFAULTS[name]), value)
