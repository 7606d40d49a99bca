# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks pass to the roles is what the roles' argument specs take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

REPOSITORY = Path(__file__).parents[2]
VLANS = [{"name": "servers", "tag": 101, "address": "10.20.0.11/24"}, {"name": "visitors", "tag": 102}]


def passed(layer: str, variable: str, **known: Any) -> Any:
    """Return what the layer's playbook makes of ``known`` for the role's variable."""
    (play,) = yaml.safe_load((REPOSITORY / "playbooks" / f"{layer}.yml").read_text())
    expression = play["roles"][0]["vars"][variable]
    return Templar(loader=DataLoader(), variables=known).template(trust_as_template(expression))


@pytest.mark.parametrize("layer", ["network", "hypervisor"])
@pytest.mark.parametrize("vlans", [VLANS, []])
def test_vlans_in_which_nodes_have_addresses(layer: str, vlans: list[dict[str, Any]]) -> None:
    variable = f"{layer}_vlans"
    specs = yaml.safe_load((REPOSITORY / "roles" / layer / "meta" / "argument_specs.yml").read_text())
    spec = {variable: specs["argument_specs"]["main"]["options"][variable]}
    given = passed(layer, variable, cluster_vlans=vlans)
    assert ArgumentSpecValidator(spec).validate({variable: given}).error_messages == []
    assert [(vlan["name"], vlan["tag"]) for vlan in given] == [(vlan["name"], vlan["tag"]) for vlan in vlans]
