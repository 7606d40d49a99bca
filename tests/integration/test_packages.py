# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages on this computer: dpkg's word for what is installed, apt's for what is not."""

from __future__ import annotations

import subprocess

import yaml
from harness import TOP, needs, run_module

needs("dpkg", "apt-get")
# Small, in every Debian, and not among what the tests install.
ABSENT = "hello-traditional"


def test_what_is_installed_costs_no_question_to_apt() -> None:
    done = run_module("packages", {"names": ["bash", "dpkg"]})
    assert done["missing"] == [] and not done["changed"] and "cache_updated" not in done


def test_a_check_says_what_apt_would_install() -> None:
    before = subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout
    assert f"\n{ABSENT}\t" not in before
    done = run_module("packages", {"names": ["bash", ABSENT]}, check=True)
    assert done["missing"] == [ABSENT] and done["changed"] and "cache_updated" in done
    assert subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True, check=True).stdout == before


def test_a_package_that_does_not_exist_is_an_error_of_apt() -> None:
    done = run_module("packages", {"names": ["bash", "no-such-package"]}, check=True)
    assert done["failed"] and "no-such-package" in done["msg"]


def test_grafana_is_looked_for_in_a_fresh_index() -> None:
    # A run that was killed between repository and package left a fresh index that does not know the package.
    tasks = yaml.safe_load((TOP / "roles/telemetry/tasks/grafana.yml").read_text())
    (wanted,) = (task["personal.cluster.packages"] for task in tasks if "personal.cluster.packages" in task)
    done = run_module("packages", {**wanted, "names": [ABSENT]}, check=True)
    assert done["missing"] == [ABSENT] and done["cache_updated"] is True
