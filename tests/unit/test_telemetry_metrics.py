# SPDX-License-Identifier: GPL-3.0-or-later
"""Every metric that a rule or a panel names exists in what was recorded on a node of a converged cluster."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jinja2
import pytest
import yaml

ROLE = Path(__file__).resolve().parents[2] / "roles/telemetry"
RECORDED = Path(__file__).parent / "recorded/collect"
# What the collector and the backup runner wrote, and what the exporter and Alertmanager answered.
SOURCES = ("collect-trixie.prom", "backup-trixie.prom", "node-exporter-trixie.prom", "alertmanager-bookworm.prom")
METRIC = re.compile(r"\b(?:personal_cluster|node|alertmanager|prometheus)_[a-zA-Z_]+\b")


def exposed() -> set[str]:
    """Return the names of all recorded series."""
    lines = [line for name in SOURCES for line in (RECORDED / name).read_text().splitlines()]
    return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}


def rules() -> dict[str, str]:
    """Return the expression of each alert; the role's values do not matter here."""
    text = re.sub(r"\[\[.*?\]\]", "1", (ROLE / "templates/rules.yml.j2").read_text())
    return {rule["alert"]: rule["expr"] for group in yaml.safe_load(text)["groups"] for rule in group["rules"]}


def panels() -> dict[str, str]:
    """Return the query of each panel."""
    dashboard = json.loads((ROLE / "files/dashboard-overview.json").read_text())
    return {panel["title"]: target["expr"] for panel in dashboard["panels"] for target in panel["targets"]}


@pytest.mark.parametrize(("name", "expression"), [*rules().items(), *panels().items()])
def test_metrics_exist(name: str, expression: str) -> None:
    named = set(METRIC.findall(re.sub(r'"[^"]*"', '""', expression)))
    assert named or name == "Watchdog" or re.search(r"\b(up|ALERTS)\b", expression), "names no metric at all"
    assert named <= exposed()


@pytest.mark.parametrize(
    ("inventory", "threshold"),
    [({}, "1"), ({"encryption_tang_threshold": 2}, "2"), ({"telemetry_tang_threshold": 3}, "3")],
)
def test_alerts_know_the_threshold_of_the_encryption_layer(inventory: dict[str, int], threshold: str) -> None:
    default = yaml.safe_load((ROLE / "defaults/main.yml").read_text())["telemetry_tang_threshold"]
    known = {"telemetry_tang_threshold": jinja2.Template(default).render(inventory), **inventory}
    text = (ROLE / "templates/rules.yml.j2").read_text()
    wanted = re.findall(r"tang_reachable\) [=<]+ (\[\[.*?\]\])", text)
    asked = [jinja2.Template(place, variable_start_string="[[", variable_end_string="]]") for place in wanted]
    assert [place.render(known) for place in asked] == [threshold] * 2


def test_an_alert_for_want_of_room_says_where_it_is_told_how_to_make_it() -> None:
    """In the docs, in which the alert has its paragraph."""
    page = (ROLE.parents[1] / "docs/replacing.md").read_text()
    text = re.sub(r"\[\[.*?\]\]", "1", (ROLE / "templates/rules.yml.j2").read_text())
    alerts = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    wanting = [
        rule
        for rule in alerts
        if re.search("full|left", rule["annotations"]["summary"]) and "Metadata" not in rule["alert"]
    ]
    assert {rule["alert"] for rule in wanting} >= {"ThinDataHigh", "ThinDataCritical", "FilesystemAlmostFull"}
    for rule in wanting:
        assert "docs/replacing.md" in rule["annotations"]["description"] and rule["alert"] in page, rule["alert"]
