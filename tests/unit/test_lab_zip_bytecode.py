# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's nodes compile what comes in zip files once, and never run anything but what came."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

NODE = Path(__file__).parents[2] / "roles" / "lab" / "files" / "node"
RUN = """
import sys
sys.path[:0] = [{zip!r}, {node!r}]
import zip_bytecode
compiled = []
plain = zip_bytecode._compile
zip_bytecode._compile = lambda name, source: compiled.append(name) or plain(name, source)
zip_bytecode.CACHE = {cache!r}
zip_bytecode.install()
import sent
print(sent.answer, len(compiled))
"""


def imported(tmp_path: Path, source: str) -> list[str]:
    """Import a module with this source from a zip file; return its answer and how often something was compiled."""
    archive = tmp_path / "sent.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.writestr("sent.py", source)
    program = RUN.format(zip=str(archive), node=str(NODE), cache=str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_the_same_source_is_compiled_once_and_another_one_anew(tmp_path: Path) -> None:
    assert imported(tmp_path, "answer = 'first'") == ["first", "1"]
    assert imported(tmp_path, "answer = 'first'") == ["first", "0"]
    assert imported(tmp_path, "answer = 'other'") == ["other", "1"]


def test_a_cache_that_cannot_be_read_or_written_does_no_harm(tmp_path: Path) -> None:
    assert imported(tmp_path, "answer = 1") == ["1", "1"]
    for file in (tmp_path / "cache").iterdir():
        file.write_bytes(file.read_bytes()[:7])
    assert imported(tmp_path, "answer = 1") == ["1", "1"]
    (elsewhere := tmp_path / "elsewhere").mkdir()
    (elsewhere / "cache").write_text("a file, not a directory")
    # Without a cache Python asks twice: for the file's name, then for the code.
    assert imported(elsewhere, "answer = 1") == ["1", "2"]
