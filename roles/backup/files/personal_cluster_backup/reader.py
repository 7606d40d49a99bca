# SPDX-License-Identifier: GPL-3.0-or-later
"""Print a disk that is exported over NBD, exactly as the guest sees it, and report its size and hash."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator

import nbd

from .errors import BackupError

CHUNK = 4 * 1024 * 1024
EXTENT_BYTES = 1024 * 1024 * 1024
PROGRESS_SECONDS = 10.0
ZEROES = bytes(CHUNK)


def _zero_ranges(handle: nbd.NBD, start: int, length: int) -> list[tuple[int, bool]]:
    """Return (length, reads as zeroes) pairs that cover the range, as far as the server tells."""
    if not handle.can_meta_context(nbd.CONTEXT_BASE_ALLOCATION):
        return [(length, False)]
    extents: list[int] = []

    def collect(_context: str, _offset: int, entries: list[int], _error: int) -> int:
        extents.extend(entries)
        return 0

    handle.block_status(length, start, collect)
    return [(extents[i], bool(extents[i + 1] & nbd.STATE_ZERO)) for i in range(0, len(extents), 2)]


def chunks(handle: nbd.NBD) -> Iterator[bytes]:
    """Give the whole export in order; what the server knows to be zero is not transferred."""
    size = handle.get_size()
    offset = 0
    while offset < size:
        for length, zero in _zero_ranges(handle, offset, min(EXTENT_BYTES, size - offset)):
            end = min(offset + length, size)
            while offset < end:
                count = min(CHUNK, end - offset)
                yield ZEROES[:count] if zero else handle.pread(count, offset)
                offset += count


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def read(uri: str, report: str, label: str) -> None:
    """Print the export at ``uri`` on standard output and write its size and SHA-256 to the file ``report``.

    The report is written last: without it the disk was not read to its end.
    """
    try:
        size, digest = _print(uri, label)
    except (nbd.Error, OSError) as error:
        raise BackupError(f"{label} cannot be read to its end: {error}") from error
    with open(report, "w", encoding="utf-8") as file:
        json.dump({"size": size, "sha256": digest}, file)


def _print(uri: str, label: str) -> tuple[int, str]:
    handle = nbd.NBD()
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
    handle.set_uri_allow_local_file(True)
    handle.connect_uri(uri)
    size, done, digest, told = handle.get_size(), 0, hashlib.sha256(), time.monotonic()
    for data in chunks(handle):
        digest.update(data)
        _write(data)
        done += len(data)
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"{label}: {done * 100 // size} % of {size >> 20} MiB read", file=sys.stderr, flush=True)
    handle.shutdown()
    return size, digest.hexdigest()
