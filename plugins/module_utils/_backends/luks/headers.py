# SPDX-License-Identifier: GPL-3.0-or-later
"""LUKS2 headers as bytes, judged by their own checksums.

cryptsetup mends one copy of a header by the other as soon as it looks, and a look must change nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.luks.model import NO_HEADER, Json
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed
from ansible_collections.personal.cluster.plugins.module_utils._run import Run

MAGIC = b"LUKS\xba\xbe"
SECOND_MAGIC = b"SKUL\xba\xbe"
VERSION_AT = slice(6, 8)
SIZE_AT = slice(8, 16)
SEQUENCE_AT = slice(16, 24)
LABEL_AT = slice(24, 72)
HASH_AT = slice(72, 104)
UUID_AT = slice(168, 208)
SUM_AT = slice(448, 512)
# The binary header with sequence number and checksum; the JSON text that it is about comes after it.
BINARY_HEADER = 4096
# The sizes that one copy of a header may have are the places at which the second one may begin.
SECOND = tuple(0x4000 << step for step in range(9))
# No LUKS2 header is longer: two copies, and the keyslots.
HEADER_LIMIT = 2 * SECOND[-1] + 128 * 2**20


def is_luks2(found: bytes) -> bool:
    """Tell whether a device begins with a LUKS2 header."""
    return found.startswith(MAGIC) and int.from_bytes(found[VERSION_AT], "big") == 2


def text_of(field: bytes) -> str:
    """Return the text in a field of a binary header."""
    return field.split(b"\0", 1)[0].decode(errors="replace")


def uuid_of(found: bytes) -> str:
    """Return the UUID in a binary header."""
    return text_of(found[UUID_AT])


@contextmanager
def reading(path: str) -> Iterator[IO[bytes]]:
    """Open a device or a backup."""
    try:
        with open(path, "rb") as stream:
            yield stream
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ClusterError(
            f"{path} cannot be read: {error.strerror}; check the path, the disk and its cable"
        ) from error


def head(path: str, length: int = BINARY_HEADER) -> Optional[bytes]:
    """Return the first bytes of a device or a backup; None when it is not there."""
    try:
        with reading(path) as stream:
            return stream.read(length)
    except FileNotFoundError:
        return None


def copies(data: bytes) -> Iterator[bytes]:
    """Yield what is left of each copy of a header at the beginning of a disk."""
    for start in (0, *SECOND):
        if data.startswith(SECOND_MAGIC if start else MAGIC, start):
            yield data[start : start + SECOND[-1]]


def uuids(data: bytes) -> tuple[str, ...]:
    """Return the UUIDs of all remains of headers."""
    return tuple(sorted({uuid_of(copy) for copy in copies(data)}))


def is_whole(copy: bytes) -> bool:
    """Tell whether a copy of a header, with what follows it, has the checksum that it says."""
    length = int.from_bytes(copy[SIZE_AT], "big")
    if length not in SECOND or len(copy) < length:
        return False
    try:
        digest = hashlib.new(text_of(copy[HASH_AT]), copy[: SUM_AT.start])
    except ValueError:
        return False
    digest.update(bytes(SUM_AT.stop - SUM_AT.start) + copy[SUM_AT.stop : length])
    return copy[SUM_AT].startswith(digest.digest())


def metadata(path: str) -> bytes:
    """Return the beginning of a device or a backup with both copies of its header."""
    first = head(path) or b""
    length = int.from_bytes(first[SIZE_AT], "big") if is_luks2(first) else 0
    return head(path, 2 * (length if length in SECOND else SECOND[-1])) or b""


def latest(data: bytes) -> bytes:
    """Return the latest whole copy, which is the one that counts; nothing when none is whole."""
    return max(filter(is_whole, copies(data)), key=lambda copy: copy[SEQUENCE_AT], default=b"")


def sequence(data: bytes) -> int:
    """Return the number of the latest whole copy; each change of a header raises it."""
    return int.from_bytes(latest(data)[SEQUENCE_AT], "big")


def is_torn(data: bytes) -> bool:
    """Tell whether one copy is not whole, or older than the other: cryptsetup would mend it."""
    numbers = [copy[SEQUENCE_AT] for copy in filter(is_whole, copies(data))]
    return len(numbers) == 1 or len(set(numbers)) > 1


@contextmanager
def in_memory(data: bytes) -> Iterator[str]:
    """Yield the path of a copy of a header that cryptsetup may mend as it likes; it goes with this process."""
    handle = os.memfd_create("header")
    try:
        os.truncate(handle, HEADER_LIMIT)
        os.pwrite(handle, data, 0)
        yield f"/proc/{os.getpid()}/fd/{handle}"
    finally:
        os.close(handle)


@contextmanager
def unmended(device: str) -> Iterator[str]:
    """Yield where cryptsetup may look at a device: at a copy of its header when it would mend that."""
    if not is_torn(metadata(device)):
        yield device
        return
    with in_memory(head(device, HEADER_LIMIT) or b"") as copy:
        yield copy


def dumped(run: Run, path: str) -> Json:
    """Return what a header says; empty when neither copy of it is whole."""
    with in_memory(metadata(path)) as copy:
        try:
            done = run(["cryptsetup", "luksDump", "--dump-json-metadata", copy])
        except CommandFailed as error:
            if NO_HEADER not in str(error):
                raise
            return {}
    data: Json = json.loads(done.stdout)
    return data


def areas(path: str, data: Json) -> dict[str, str]:
    """Return the SHA-256 of what each keyslot holds, on a device or in a backup."""
    with reading(path) as stream:
        return {slot: _area(stream, keyslot["area"]) for slot, keyslot in data["keyslots"].items()}


def _area(stream: IO[bytes], area: Json) -> str:
    stream.seek(int(area["offset"]))
    return hashlib.sha256(stream.read(int(area["size"]))).hexdigest()


def volume_keys(data: Json) -> frozenset[str]:
    """Return the digests of the keys that the data is encrypted with."""
    return frozenset(digest["digest"] for digest in data.get("digests", {}).values() if digest["segments"])
