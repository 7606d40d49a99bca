# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep the bytecode of modules that are imported from zip files, as Python does for modules in directories.

Every task sends its module in a zip file, and Python compiles all of Ansible's code in it anew: half of what a task
costs an emulated node. Only the lab's nodes have this; a file's name holds the hash of the source that it was made of.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import zipimport
from _imp import source_hash
from collections.abc import Callable
from types import CodeType

CACHE = "/var/cache/zip-bytecode"

# zipimport offers no hook between reading and compiling: this function of its own is replaced, and called by its name.
_INSIDES = vars(zipimport)
_compile: Callable[[str, bytes], CodeType] = _INSIDES["_compile_source"]


def _load_or_compile(pathname: str, source: bytes) -> CodeType:
    module = pathname.rpartition(".zip/")[2].replace("/", ".")
    file = f"{CACHE}/{module}-{source_hash(1, source).hex()}"
    # Whatever is wrong with the cache, the source is there.
    with contextlib.suppress(OSError, ValueError, EOFError, TypeError), open(file, "rb") as stream:
        code = marshal.load(stream)
        if isinstance(code, CodeType):
            return code
    made = _compile(pathname, source)
    with contextlib.suppress(OSError):
        os.makedirs(CACHE, mode=0o700, exist_ok=True)
        unfinished = f"{file}.{os.getpid()}"
        with open(unfinished, "wb") as stream:
            marshal.dump(made, stream)
        os.replace(unfinished, file)
    return made


def install() -> None:
    """Make zipimport use the cache."""
    _INSIDES["_compile_source"] = _load_or_compile
