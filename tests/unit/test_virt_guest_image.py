# SPDX-License-Identifier: GPL-3.0-or-later
"""The builder of the lab's tiny guest."""

from __future__ import annotations

import gzip
import importlib.util
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

GUEST = Path(__file__).parents[2] / "roles" / "lab" / "files" / "guest"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_guest", GUEST / "build_guest.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_guest"] = module
    spec.loader.exec_module(module)
    return module


def test_the_archive_is_one_that_cpio_reads(builder: ModuleType) -> None:
    root = builder.Initramfs()
    root.file("bin/busybox", b"x" * 5)
    root.link("bin/sh", "busybox")
    listed = subprocess.run(["cpio", "-tv"], input=root.archive(), capture_output=True, check=True).stdout.decode()
    assert [line.split()[0] for line in listed.splitlines()] == ["drwxr-xr-x", "-rwxr-xr-x", "lrwxrwxrwx"]
    assert "bin/sh -> busybox" in listed


def bzimage(payload: bytes) -> bytes:
    image = bytearray(2 * 512 + len(payload))
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    image[1024:] = payload
    return bytes(image)


def test_the_kernel_is_unpacked_from_its_payload(builder: ModuleType) -> None:
    assert builder.uncompressed_kernel(bzimage(gzip.compress(b"\x7fELF kernel"))) == b"\x7fELF kernel"
    with pytest.raises(builder.BuildError, match="unknown compression"):
        builder.uncompressed_kernel(bzimage(b"plain text"))
    with pytest.raises(builder.BuildError, match="not an x86 bzImage"):
        builder.uncompressed_kernel(bytes(1024))


def test_real_libraries_are_found_through_each_other(builder: ModuleType) -> None:
    found = builder.libraries([Path("/")], Path("/bin/ls").read_bytes())
    assert "libc.so.6" in found and "ld-linux-x86-64.so.2" in found


def test_drivers_are_loaded_after_what_they_need(builder: ModuleType) -> None:
    drivers = {
        "ring": builder.Driver(b"", []),
        "virtio": builder.Driver(b"", ["ring"]),
        "virtio_net": builder.Driver(b"", ["ring", "virtio"]),
    }
    # modprobe loads the list from its end.
    assert builder._all_needed(drivers, "virtio_net") == ["virtio", "ring"]


def test_a_missing_package_is_named(builder: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match="unpack the Debian package busybox-static"):
        builder.find([tmp_path], "*bin/busybox", "busybox-static")


@pytest.mark.parametrize("name", ["init", "fsfreeze-hook", "shutdown"])
def test_the_scripts_parse(name: str) -> None:
    subprocess.run(["sh", "-n", str(GUEST / name)], check=True)
