# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the lab's tiny guest from Debian packages: an uncompressed kernel and an initramfs.

QEMU starts an uncompressed ``vmlinux`` through PVH, without firmware and without unpacking: in
a guest that is emulated inside an emulated node this saves minutes. Needs no root.

The trees are unpacked packages (``dpkg-deb -x``) or a whole node image; the first tree that
holds a file wins. Wanted in them: a kernel (``linux-image-cloud-amd64``), ``busybox-static``,
``qemu-guest-agent`` and the shared libraries that it links.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console")
APPLETS = (
    "arping cat chmod dd dmesg grep hostname ip kill ln ls lsmod mkdir mkfifo modprobe mount nc ping poweroff ps "
    "reboot rm sh sha256sum sleep sync touch true uptime wc"
).split()
FSTAB = b"proc /proc proc defaults 0 0\nsys /sys sysfs defaults 0 0\ndev /dev devtmpfs defaults 0 0\n"
LIBRARY_DIRS = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib64", "lib64")
LOADER = "lib64/ld-linux-x86-64.so.2"
PAYLOAD_TOOLS = {b"\x28\xb5\x2f\xfd": ("zstd", "-dc"), b"\x02\x21\x4c\x18": ("lz4", "-dc")}


class BuildError(Exception):
    """Something is missing; the message names it and the package that has it."""


@dataclass
class Initramfs:
    """An uncompressed cpio archive (``newc``) of files owned by root."""

    body: bytearray = field(default_factory=bytearray)
    seen: set[str] = field(default_factory=set)

    def directory(self, path: str) -> None:
        """Add ``path`` and its parents, each once."""
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)
        if path not in self.seen:
            self._entry(path, 0o40755, b"")

    def file(self, path: str, data: bytes, mode: int = 0o755) -> None:
        """Add a regular file; its directory is added before it."""
        self._parent(path)
        self._entry(path, 0o100000 | mode, data)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        self._parent(path)
        self._entry(path, 0o120777, target.encode())

    def archive(self) -> bytes:
        """Return the finished archive."""
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self.body)

    def _parent(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if parent:
            self.directory(parent)

    def _entry(self, path: str, mode: int, data: bytes) -> None:
        self.seen.add(path)
        name = path.encode() + b"\0"
        numbers = (len(self.seen), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        self.body += b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        self.body += b"\0" * (-len(self.body) % 4) + data
        self.body += b"\0" * (-len(self.body) % 4)


def find(trees: list[Path], pattern: str, package: str) -> Path:
    """Return the newest file of the first tree in which ``pattern`` matches.

    :raises BuildError: no tree holds it; the message names ``package``.
    """
    for tree in trees:
        found = sorted(tree.glob(pattern))
        if found:
            return found[-1]
    raise BuildError(f"{pattern} is in none of {', '.join(map(str, trees))}; unpack the Debian package {package} there")


def uncompressed_kernel(image: bytes) -> bytes:
    """Return the ELF kernel inside a bzImage.

    :raises BuildError: not a bzImage, an unknown compression, or its tool is not installed.
    """
    if image[0x202:0x206] != b"HdrS":
        raise BuildError("the kernel is not an x86 bzImage")
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    kernel = _unpacked(payload)
    if kernel[:4] != b"\x7fELF":
        raise BuildError("the kernel's payload did not unpack to an ELF image")
    return kernel


def _unpacked(payload: bytes) -> bytes:
    if payload[:2] == b"\x1f\x8b":
        return gzip.decompress(payload)
    if payload[:6] == b"\xfd7zXZ\0":
        return lzma.LZMADecompressor().decompress(payload)
    tool = PAYLOAD_TOOLS.get(payload[:4])
    if tool is None:
        raise BuildError(f"the kernel's payload has an unknown compression ({payload[:4].hex()})")
    if shutil.which(tool[0]) is None:
        raise BuildError(f"{tool[0]} is not installed; it unpacks this kernel: apt install {tool[0]}")
    # The kernel's build appends the unpacked size, four bytes that the tools take for garbage.
    return subprocess.run(tool, input=payload[:-4], stdout=subprocess.PIPE, check=True, timeout=120).stdout


@dataclass(frozen=True)
class Elf:
    """As much of a 64-bit little-endian ELF file as the builder asks for."""

    data: bytes

    def sections(self) -> list[tuple[str, int, bytes]]:
        """Return name, index of the linked section, and content of each section."""
        table, size, count, names = (
            struct.unpack_from("<Q", self.data, 0x28)[0],
            *struct.unpack_from("<HHH", self.data, 0x3A),
        )
        heads = [struct.unpack_from("<IIQQQQII", self.data, table + number * size) for number in range(count)]
        bodies = [b"" if head[1] == 8 else self.data[head[4] : head[4] + head[5]] for head in heads]
        return [(_text(bodies[names], head[0]), head[6], body) for head, body in zip(heads, bodies, strict=True)]

    def needed(self) -> list[str]:
        """Return the shared libraries that the file links (``DT_NEEDED``)."""
        sections = self.sections()
        for name, link, body in sections:
            if name == ".dynamic":
                return [_text(sections[link][2], value) for tag, value in struct.iter_unpack("<qQ", body) if tag == 1]
        return []

    def module_dependencies(self) -> list[str]:
        """Return the modules that this kernel module depends on."""
        for name, _link, body in self.sections():
            if name == ".modinfo":
                for item in body.split(b"\0"):
                    if item.startswith(b"depends="):
                        return [part.replace("-", "_") for part in item[8:].decode().split(",") if part]
        return []


def _text(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


@dataclass(frozen=True)
class Driver:
    """A kernel module, unpacked, and the modules that it depends on."""

    data: bytes
    depends: list[str]


def modules(trees: list[Path], version: str) -> dict[str, Driver]:
    """Return the drivers that are not built into the kernel, each after what it depends on."""
    folder = next(
        (f for t in trees for f in (t / "usr/lib/modules" / version, t / "lib/modules" / version) if f.is_dir()), None
    )
    if folder is None:
        raise BuildError(f"lib/modules/{version} is in none of the trees; unpack the kernel's package there")
    builtin = {Path(line).stem.replace("-", "_") for line in (folder / "modules.builtin").read_text().split()}
    paths = {path.name.partition(".")[0].replace("-", "_"): path for path in folder.rglob("*.ko*")}
    loaded: dict[str, Driver] = {}

    def load(name: str) -> None:
        if name in builtin or name in loaded:
            return
        if name not in paths:
            raise BuildError(f"the kernel {version} has no driver {name}")
        path = paths[name]
        data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        driver = Driver(data, Elf(data).module_dependencies())
        for dependency in driver.depends:
            load(dependency)
        loaded[name] = driver

    for wanted in DRIVERS:
        load(wanted)
    return loaded


def libraries(trees: list[Path], program: bytes) -> dict[str, bytes]:
    """Return every shared library that ``program`` needs, by its name."""
    found: dict[str, bytes] = {}
    waiting = Elf(program).needed()
    while waiting:
        name = waiting.pop()
        if name not in found:
            paths = (tree / folder / name for tree in trees for folder in LIBRARY_DIRS)
            path = next((path for path in paths if path.is_file()), None)
            if path is None:
                raise BuildError(
                    f"the library {name} of qemu-guest-agent is in none of the trees; unpack its package there"
                )
            found[name] = path.read_bytes()
            waiting += Elf(found[name]).needed()
    return found


def _add_drivers(root: Initramfs, drivers: dict[str, Driver], folder: str) -> None:
    """Add the drivers with the index that ``modprobe`` reads: every dependency, the deepest last."""
    index = ""
    for name, driver in drivers.items():
        root.file(f"{folder}/{name}.ko", driver.data, 0o644)
        index += f"{name}.ko: {' '.join(f'{needed}.ko' for needed in _all_needed(drivers, name))}\n"
    root.file(f"{folder}/modules.dep", index.encode(), 0o644)
    root.file("etc/drivers", (" ".join(name for name in drivers if name in DRIVERS) + "\n").encode(), 0o644)


def _all_needed(drivers: dict[str, Driver], name: str) -> list[str]:
    """Return everything that must be loaded before ``name``, last first; ``drivers`` is in the order of loading."""
    needed = set(drivers[name].depends)
    for earlier in reversed(drivers):
        if earlier in needed:
            needed.update(drivers[earlier].depends)
    return [earlier for earlier in reversed(drivers) if earlier in needed]


def initramfs(trees: list[Path], version: str) -> bytes:
    """Return the guest's file system."""
    root = Initramfs()
    for path in ("dev", "proc", "sys", "run", "tmp", "etc"):
        root.directory(path)
    root.file("bin/busybox", find(trees, "*bin/busybox", "busybox-static").read_bytes())
    for applet in APPLETS:
        root.link(f"bin/{applet}", "busybox")
    agent = find(trees, "usr/sbin/qemu-ga", "qemu-guest-agent").read_bytes()
    root.file("bin/qemu-ga", agent)
    for name, data in libraries(trees, agent).items():
        root.file(LOADER if name == Path(LOADER).name else f"lib/{name}", data)
    _add_drivers(root, modules(trees, version), f"lib/modules/{version}")
    root.file("etc/fstab", FSTAB, 0o644)
    root.file("init", (HERE / "init").read_bytes())
    root.file("bin/fsfreeze-hook", (HERE / "fsfreeze-hook").read_bytes())
    root.file("sbin/shutdown", (HERE / "shutdown").read_bytes())
    return root.archive()


def build(trees: list[Path], out: Path) -> None:
    """Write ``vmlinux`` and ``initramfs`` into ``out``."""
    kernel = find(trees, "boot/vmlinuz-*", "linux-image-cloud-amd64")
    version = kernel.name.removeprefix("vmlinuz-")
    parts = {"vmlinux": uncompressed_kernel(kernel.read_bytes()), "initramfs": initramfs(trees, version)}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in parts.items():
        unfinished = out / f".{name}.new"
        unfinished.write_bytes(data)
        unfinished.replace(out / name)
        print(f"{out / name}: {len(data) >> 20} MB, kernel {version}")


def main() -> int:
    """Read the arguments, build, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the lab's tiny guest from unpacked Debian packages.")
    parser.add_argument("--tree", type=Path, action="append", required=True, help="unpacked packages; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="directory for vmlinux and initramfs")
    arguments = parser.parse_args()
    try:
        build(arguments.tree, arguments.out)
    except (BuildError, OSError, subprocess.SubprocessError) as error:
        print(f"build_guest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
