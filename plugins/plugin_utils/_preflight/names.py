# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of variables: one that begins like those of the collection, and is none of them, was misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load
from ansible_collections.personal.cluster.plugins.plugin_utils._preflight.model import (
    CLUSTER,
    Check,
    Finding,
    Site,
)

COLLECTION = Path(__file__).parents[3]
# Of the lab nothing is told: its machines and its inventory are its own.
PREFIXES = sorted({path.name for path in (COLLECTION / "roles").iterdir()} - {"lab"} | {"cluster"})
OWNED = re.compile(rf"({'|'.join(PREFIXES)})_\w+")
# In a playbook, but for options and results of modules that are called alike.
READ = re.compile(rf"(?<![\w.])(?:{'|'.join(PREFIXES)})_\w+(?![\w:])")


@cache
def known_names() -> frozenset[str]:
    """Return the options of all roles, and what the playbooks read of an inventory: the cluster_* variables."""
    specs = [yaml_load(path.read_text()) for path in COLLECTION.glob("roles/*/meta/argument_specs.yml")]
    options = {name for spec in specs for entry in spec["argument_specs"].values() for name in entry["options"]}
    playbooks = (path.read_text() for path in COLLECTION.glob("playbooks/**/*.yml"))
    return frozenset(options.union(*map(READ.findall, playbooks)))


def variables_known(site: Site) -> Iterator[Finding]:
    """Nothing else would tell of a misspelt name: its variable has the default, or is not there."""
    known = known_names().union(site.settings["own_variables"])
    where: dict[str, list[str]] = {}
    for host in site.hosts:
        for name in host.declared.get("variables") or ():
            if OWNED.fullmatch(name) and name not in known:
                where.setdefault(name, []).append(host.name)
    for name, hosts in where.items():
        near = "".join(f"did you mean {other}? " for other in get_close_matches(name, sorted(known), n=1))
        for place in hosts if len(hosts) < len(site.hosts) else [CLUSTER]:
            yield Finding(
                place,
                name,
                "nothing reads a variable of this name",
                f"{near}A variable of your own has a name that begins otherwise, or stands in preflight_own_variables",
            )


SITE_CHECKS: tuple[Check, ...] = (variables_known,)
