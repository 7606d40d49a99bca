# SPDX-License-Identifier: GPL-3.0-or-later
"""Tools are run alike whatever the locale of the node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COLLECTIONS = Path(__file__).resolve().parents[2] / ".build/collections"
PROGRAM = """
import sys
from ansible_collections.personal.cluster.plugins.module_utils._run import Runner
done = Runner()(["od", "-An", "-tx1"], stdin="p\\u00e4\\u2192")
assert done.stdout.split() == ["70", "c3", "a4", "e2", "86", "92"], done.stdout
"""


def test_a_passphrase_is_the_same_in_every_locale() -> None:
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(COLLECTIONS)}
    argv = [sys.executable, "-X", "utf8=0", "-c", PROGRAM]
    subprocess.run(argv, env={**os.environ, **plain}, check=True, timeout=60)
