# SPDX-License-Identifier: GPL-3.0-or-later
"""What make runs on one lab: the scenarios of a lane can follow each other, from bare nodes on."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from plays import REPOSITORY

TEST = re.compile(r"^ +(tests/e2e/\S+::\S.*?)(?: \(fixtures used: (.*)\))?$")


def lanes(*target: str) -> dict[str, str]:
    """Return what a target of the Makefile selects, by what it boots the lab with."""
    argv = ["make", "--dry-run", "--no-print-directory", *target]
    # Without what the make that runs these tests was told.
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    boots = re.findall(r"clusterlab up(.*)$", done.stdout, re.MULTILINE)
    marks = [shlex.split(words)[-1] for words in re.findall(r"pytest (.* tests/e2e .*)$", done.stdout, re.MULTILINE)]
    return dict(zip(map(str.strip, boots), marks, strict=True))


def setups(marks: str) -> list[tuple[str, set[str]]]:
    """Return the tests that these marks select, in their order, each with the fixtures that it uses."""
    argv = [sys.executable, "-m", "pytest", "--setup-plan", "-q", "-p", "no:cacheprovider", "tests/e2e", "-m", marks]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = [match for line in done.stdout.splitlines() if (match := TEST.match(line))]
    return [(match[1], set((match[2] or "").split(", "))) for match in found]


def test_what_each_target_selects() -> None:
    assert lanes("e2e") == {"": "not long"}
    assert lanes("e2e", "RELEASE=bookworm") == {"--release bookworm": "not long"}
    assert lanes("e2e-long") == {"--release trixie": "long and not six", "--release bookworm": "not long"}
    assert lanes("e2e-long", "RELEASE=bookworm") == {"--release bookworm": "long and not six"}


@pytest.mark.parametrize("target", ["e2e", "e2e-long", "e2e-six"])
def test_no_scenario_of_a_lane_wants_bare_nodes_after_one_that_builds(target: str) -> None:
    for marks in lanes(target).values():
        tests = setups(marks)
        files = [name.split("::")[0] for name, _ in tests]
        bare = {file for file, (_, fixtures) in zip(files, tests, strict=True) if "bare" in fixtures}
        # The nodes are, at the first one of a file that says so; the others of that file go on from there.
        assert bare <= {files[0]}, f"{marks}: {bare} after {files[0]}"
        assert tests[0][1] & {"bare", "built"}, f"{marks}: {tests[0][0]} begins with whatever there is"
