# SPDX-License-Identifier: GPL-3.0-or-later
"""The escrow bundle: headers of disks and secrets in one tar archive, encrypted by gpg with a passphrase.

Plain text goes through pipes alone, from and to gpg. What is inside is compared by opening the bundle, which proves at
each run that it can be opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet

SECONDS = 600.0
MANIFEST = "manifest.json"
README = "README"
HEADERS, SECRETS = "headers", "secrets"
CIPHER = ["--cipher-algo=AES256", "--s2k-mode=3", "--s2k-digest-algo=SHA512", "--s2k-count=65011712"]
HELP = """\
Headers of the encrypted disks, and the secrets that open disks and backups.

headers/HOST/DISK.img   header of a disk; manifest.json tells UUID and size in bytes of the disk that it belongs to
secrets/                a file each

A disk of that UUID and size gets its header back, by hand, with
    cryptsetup luksHeaderRestore --header-backup-file headers/HOST/DISK.img /dev/DISK
and opens with what is in secrets/recovery-passphrase or secrets/recovery-key (-HOST where each has its own)
    cryptsetup open /dev/DISK luks-DISK
"""


@dataclass(frozen=True)
class Header:
    """The header of one disk; ``size`` is that of the disk, in bytes."""

    host: str
    name: str
    uuid: str
    size: int
    sha256: str

    @property
    def member(self) -> str:
        """Its place in the archive."""
        return f"{HEADERS}/{self.host}/{self.name}.img"

    @property
    def words(self) -> str:
        """What people call it."""
        return f"the header of {self.name} on {self.host}"


@dataclass(frozen=True)
class State:
    """What the bundle holds: headers by their place, and the SHA-256 of each secret, which stays in here."""

    headers: Mapping[str, Header] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    mode: Optional[int] = None


def _sha256(data: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := data.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _sha256_of(text: str) -> str:
    return _sha256(io.BytesIO(text.encode()))


class Gpg:
    """gpg with one passphrase, without anybody's keyring, configuration or cache."""

    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase

    @contextmanager
    def _started(self, *options: str, **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
        with tempfile.TemporaryDirectory(prefix="personal-cluster-gpg-") as home:
            base = ["gpg", "--homedir", home, "--batch", "--no-tty", "--quiet", "--no-options", "--no-symkey-cache"]
            secret, feed = os.pipe()
            os.write(feed, self._passphrase.encode() + b"\n")
            os.close(feed)
            argv = [*base, "--pinentry-mode=loopback", f"--passphrase-fd={secret}", *options]
            try:
                process = subprocess.Popen(argv, stderr=subprocess.PIPE, pass_fds=[secret], **streams)
            except FileNotFoundError as error:
                raise NotYet("gpg is not installed on this computer: apt-get install gpg gpg-agent") from error
            finally:
                os.close(secret)
            try:
                yield process
            finally:
                process.kill()
                process.wait()
                agent = ["gpgconf", "--homedir", home, "--kill", "all"]
                subprocess.run(agent, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS, check=False)

    @staticmethod
    def _end(process: subprocess.Popen[bytes], failure: str) -> None:
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace").strip()
        if process.wait(SECONDS):
            raise ClusterError(f"{failure}: {said[-500:]}")

    @contextmanager
    def reading(self, path: Path) -> Iterator[tarfile.TarFile]:
        """Open a bundle as a stream of members.

        :raises ClusterError: it does not open with the passphrase, or was changed by somebody.
        """
        failure = f"{path} does not open with the escrow passphrase; give the one it was made with, or move it away"
        with self._started("--decrypt", str(path), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
                    yield archive
                while process.stdout.read(2**20):
                    pass
            except tarfile.TarError:
                self._end(process, failure)
                raise ClusterError(f"{path} holds no archive; move it away") from None
            self._end(process, failure)

    @contextmanager
    def writing(self, target: IO[bytes]) -> Iterator[tarfile.TarFile]:
        """Encrypt an archive that is written as a stream."""
        options = ["--symmetric", *CIPHER, "--compress-algo=none", "--output=-"]
        with self._started(*options, stdin=subprocess.PIPE, stdout=target) as process:
            assert process.stdin is not None
            try:
                with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                    yield archive
                process.stdin.close()
            except BrokenPipeError:
                pass
            self._end(process, "gpg did not encrypt the bundle")


def _add(archive: tarfile.TarFile, name: str, data: IO[bytes], size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o400
    archive.addfile(member, data)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    data = text.encode()
    _add(archive, name, io.BytesIO(data), len(data))


def _read(gpg: Gpg, path: Path) -> State:
    """Hash every member, and believe nothing of it before gpg has seen all of it."""
    found: dict[str, str] = {}
    manifest = b"[]"
    with gpg.reading(path) as archive:
        for member in archive:
            data = archive.extractfile(member)
            if data is not None and member.name == MANIFEST:
                manifest = data.read()
            elif data is not None:
                found[member.name] = _sha256(data)
    headers = {header.member: header for header in (Header(**item) for item in json.loads(manifest))}
    broken = [header.words for place, header in headers.items() if found.get(place) != header.sha256]
    if broken:
        raise ClusterError(f"{path} was made with other content than {', '.join(broken)}; move it away")
    prefix = f"{SECRETS}/"
    secrets = {name.removeprefix(prefix): sha256 for name, sha256 in found.items() if name.startswith(prefix)}
    return State(headers, secrets, path.stat().st_mode & 0o777)


def _words(headers: Iterable[Header], secrets: Iterable[str]) -> str:
    return ", ".join([*(header.words for header in headers), *(f"the secret {name}" for name in sorted(secrets))])


class Bundle:
    """A bundle that shall hold headers and secrets; see the module luks_escrow for the parameters."""

    def __init__(
        self,
        path: str,
        gpg: Gpg,
        headers: Sequence[Header],
        secrets: Mapping[str, str],
        *,
        incoming: Optional[str],
        purge: bool,
    ) -> None:
        self._path = Path(path)
        self._gpg = gpg
        self._headers = {header.member: header for header in headers}
        self._secrets = secrets
        self._incoming = Path(incoming) if incoming else None
        self._purge = purge

    def read(self) -> State:
        """Open the bundle."""
        return _read(self._gpg, self._path) if self._path.exists() else self.blank()

    def blank(self) -> State:
        """Return the absence of a bundle."""
        return State()

    def plan(self, state: State) -> Plan[State]:
        """Write the bundle anew when anything in it differs; what is not declared stays in it unless it is purged."""
        left = self._left(state)
        headers = [header for header in self._headers.values() if state.headers.get(header.member) != header]
        secrets = [name for name, text in self._secrets.items() if state.secrets.get(name) != _sha256_of(text)]
        plan = Plan(
            State(
                {**left.headers, **self._headers},
                {**left.secrets, **{name: _sha256_of(text) for name, text in self._secrets.items()}},
                0o600,
            )
        )
        gone = [header for place, header in state.headers.items() if place not in left.headers]
        changes = [
            (f"put {_words(headers, secrets)} into {self._path}", headers or secrets),
            (f"take {_words(gone, state.secrets.keys() - left.secrets)} out of {self._path}", left != state),
        ]
        sentences = [sentence for sentence, is_due in changes if is_due]
        if sentences:
            plan.steps.append(Step(" and ".join(sentences), lambda: self._write(left)))
        elif state.mode != 0o600:
            plan.steps.append(Step(f"give {self._path} to its owner alone", lambda: self._path.chmod(0o600)))
        return plan

    def _left(self, state: State) -> State:
        """Return what stays in the bundle, in this content or in another."""
        if not self._purge:
            return state
        headers = {place: header for place, header in state.headers.items() if place in self._headers}
        secrets = {name: sha256 for name, sha256 in state.secrets.items() if name in self._secrets}
        return State(headers, secrets, state.mode)

    def _write(self, state: State) -> None:
        old = {place: header.sha256 for place, header in state.headers.items()}
        new = [header for place, header in self._headers.items() if old.get(place) != header.sha256]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(self._path, 0o600) as target, self._gpg.writing(target) as archive:
            self._fill(archive, state, new)

    def _fill(self, archive: tarfile.TarFile, state: State, new: Sequence[Header]) -> None:
        _add_text(archive, README, HELP)
        known = {**state.headers, **self._headers}
        _add_text(archive, MANIFEST, json.dumps([asdict(known[place]) for place in sorted(known)], indent=2) + "\n")
        for name, text in sorted(self._secrets.items()):
            _add_text(archive, f"{SECRETS}/{name}", text)
        for header in new:
            self._add_header(archive, header)
        if state.mode is not None:
            self._keep(archive, state, {header.member for header in new})

    def _add_header(self, archive: tarfile.TarFile, header: Header) -> None:
        source = self._incoming / f"{header.sha256}.img" if self._incoming else None
        if source is None or not source.exists():
            raise ClusterError(f"{header.words} was not handed over; nothing was written")
        with source.open("rb") as data:
            if _sha256(data) != header.sha256:
                raise ClusterError(f"{header.words} was changed on its way; nothing was written, run this again")
            data.seek(0)
            _add(archive, header.member, data, source.stat().st_size)

    def _keep(self, archive: tarfile.TarFile, state: State, replaced: Collection[str]) -> None:
        kept = {place for place in state.headers if place not in replaced}
        kept |= {f"{SECRETS}/{name}" for name in state.secrets if name not in self._secrets}
        with self._gpg.reading(self._path) as old:
            for member in old:
                data = old.extractfile(member)
                if member.name in kept and data is not None:
                    _add(archive, member.name, data, member.size)

    def view(self, state: State) -> dict[str, Any]:
        """Return what is inside, secrets by their names alone."""
        return {
            "headers": [asdict(state.headers[place]) for place in sorted(state.headers)],
            "secrets": sorted(state.secrets),
            "mode": None if state.mode is None else f"{state.mode:04o}",
        }


@dataclass(frozen=True)
class Copy:
    """A header in the bundle, and the SHA-256 of the file that it shall be taken to."""

    header: Header
    sha256: str = ""


class Taken:
    """One header taken out of a bundle to a file."""

    def __init__(self, path: str, gpg: Gpg, host: str, name: str, dest: str) -> None:
        self._path = Path(path)
        self._gpg = gpg
        self._wanted = (host, name)
        self._dest = Path(dest)

    def read(self) -> Copy:
        """Look into the bundle, and at the file."""
        if not self._path.exists():
            raise ClusterError(
                f"there is no bundle {self._path}, which playbooks/escrow.yml makes while headers are whole; what the "
                "node itself has kept, in /var/backups/personal-cluster/luks-headers, is restored by cryptsetup "
                "luksHeaderRestore"
            )
        headers = _read(self._gpg, self._path).headers
        for header in headers.values():
            if (header.host, header.name) == self._wanted:
                return Copy(header, self._digest())
        known = ", ".join(f"{header.name} on {header.host}" for header in headers.values()) or "no disk"
        host, name = self._wanted
        raise ClusterError(f"{self._path} has no header of {name} on {host}; it has those of {known}")

    def _digest(self) -> str:
        if not self._dest.exists():
            return ""
        with self._dest.open("rb") as data:
            return _sha256(data)

    def blank(self) -> Copy:
        """Look as well as is possible: without gpg nothing is known."""
        return self.read()

    def plan(self, state: Copy) -> Plan[Copy]:
        """Write the file unless it is there."""
        plan = Plan(Copy(state.header, state.header.sha256))
        if state.sha256 != state.header.sha256:
            sentence = f"take {state.header.words} out of {self._path} to {self._dest}"
            plan.steps.append(Step(sentence, lambda: self._take(state.header)))
        return plan

    def _take(self, header: Header) -> None:
        with self._gpg.reading(self._path) as archive:
            for member in archive:
                data = archive.extractfile(member)
                if member.name == header.member and data is not None:
                    with replacing(self._dest, 0o600) as target:
                        target.write(data.read())

    def view(self, state: Copy) -> dict[str, Any]:
        """Return what the manifest tells of the header."""
        return {"header": asdict(state.header), "dest": str(self._dest) if state.sha256 else None}
