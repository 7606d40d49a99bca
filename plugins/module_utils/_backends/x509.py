# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster's own certificate authority and the certificates of its nodes, kept in one directory.

Layout, so that a renewal can put new files beside old ones: ``ca.key`` and ``ca.pem`` (what nodes trust; may hold
several certificates while one authority follows another, the first is the one that signs), ``nodes/NAME.key`` and
``nodes/NAME.pem``.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ansible_collections.personal.cluster.plugins.module_utils._durable import replacing
from ansible_collections.personal.cluster.plugins.module_utils._engine import Plan, Step
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False

# Certificates are valid since long ago. A node whose clock battery is dead boots with the day on which its systemd was
# built, and may set the clocks of the others; nothing would connect before the first day of their certificates.
VALID_FROM = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
WARN_BEFORE = 90  # days
NEW = "new"


@dataclass(frozen=True)
class Wanted:
    """A node's certificate as it shall be: common name and subject alternative names."""

    name: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate as they are; empty texts where a file is missing."""

    key: bool = False
    key_mode: int = 0
    serial: str = ""
    not_after: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    trusted: bool = True

    @property
    def complete(self) -> bool:
        """Whether both files are there."""
        return self.key and bool(self.serial)


@dataclass(frozen=True)
class State:
    """The directory's mode (``None`` without it), the authority, and each node's pair by name."""

    mode: int | None
    authority: Pair
    nodes: Mapping[str, Pair]


def _write(path: Path, data: bytes, mode: int) -> None:
    with replacing(path, mode) as stream:
        stream.write(data)


class Authority:
    """The directory with the authority's and the nodes' keys and certificates.

    :param renew_days: certificates of nodes that end within so many days are issued again.
    """

    def __init__(
        self,
        directory: str,
        cluster: str,
        nodes: Sequence[Wanted],
        ca_years: int,
        node_years: int,
        renew_days: int = 0,
        now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._directory = Path(directory)
        self._cluster = cluster
        self._wanted = {node.name: node for node in nodes}
        self._ca_years = ca_years
        self._node_years = node_years
        self._renew_days = renew_days
        self._now = now

    # What is there

    def read(self) -> State:
        """Read every file once."""
        if not HAS_CRYPTOGRAPHY:
            raise ClusterError("the Python that runs this lacks the library cryptography: pip install cryptography")
        if not self._directory.is_dir():
            return self.blank()
        signer = self._certificate(self._directory / "ca.pem")
        return State(
            mode=self._directory.stat().st_mode & 0o777,
            authority=self._pair(self._directory / "ca", None),
            nodes={name: self._pair(self._directory / "nodes" / name, signer) for name in self._wanted},
        )

    def blank(self) -> State:
        """Return a controller on which there is nothing yet."""
        return State(None, Pair(), dict.fromkeys(self._wanted, Pair()))

    def _certificate(self, path: Path) -> Any:
        try:
            return x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ClusterError(f"{path} holds no certificate: {error}; restore it from your backup") from error

    def _pair(self, stem: Path, signer: Any) -> Pair:
        key = stem.with_name(stem.name + ".key")
        pair = Pair(key.exists(), key.stat().st_mode & 0o777 if key.exists() else 0)
        certificate = self._certificate(stem.with_name(stem.name + ".pem"))
        if certificate is None:
            return pair
        names, addresses = _alternatives(certificate)
        return replace(
            pair,
            serial=f"{certificate.serial_number:x}",
            not_after=certificate.not_valid_after_utc.isoformat(),
            names=names,
            addresses=addresses,
            trusted=signer is None or _issued_by(certificate, signer),
        )

    # What is to be done

    def plan(self, state: State) -> Plan[State]:
        """Make what is missing; never replace a key; issue a certificate again when a node's names have changed."""
        refusals = list(self._refusals(state))
        steps: list[Step] = []
        if state.mode != 0o700:
            steps.append(Step(f"give {self._directory} to its owner alone", self._make_directory))
        if not state.authority.complete:
            steps.append(Step(f"make the certificate authority of cluster {self._cluster}", self._make_authority))
        nodes = {name: replace(pair, key_mode=0o600) for name, pair in state.nodes.items()}
        for name, wanted in self._wanted.items():
            pair = state.nodes[name]
            if not pair.complete:
                steps.append(Step(f"make the key and the certificate of {name}", partial(self._make_node, wanted)))
            elif (pair.names, pair.addresses) != (wanted.names, wanted.addresses):
                sentence = f"issue the certificate of {name} again for {', '.join(wanted.names + wanted.addresses)}"
                steps.append(Step(sentence, partial(self._make_node, wanted)))
            elif self._ends_within(pair, self._renew_days):
                sentence = f"issue the certificate of {name} again: it ends on {pair.not_after[:10]}"
                steps.append(Step(sentence, partial(self._make_node, wanted)))
            else:
                continue
            nodes[name] = Pair(True, 0o600, NEW, NEW, wanted.names, wanted.addresses)
        for path, pair in self._pairs(state):
            if pair.key and pair.key_mode != 0o600:
                steps.append(Step(f"give {path} to its owner alone", partial(path.chmod, 0o600)))
        authority = (
            replace(state.authority, key_mode=0o600) if state.authority.complete else Pair(True, 0o600, NEW, NEW)
        )
        return Plan(State(0o700, authority, nodes), steps, refusals, list(self._warnings(state)))

    def _pairs(self, state: State) -> Iterator[tuple[Path, Pair]]:
        yield self._directory / "ca.key", state.authority
        for name, pair in state.nodes.items():
            yield self._directory / "nodes" / f"{name}.key", pair

    def _ends_within(self, pair: Pair, days: int) -> bool:
        return bool(pair.not_after) and (datetime.datetime.fromisoformat(pair.not_after) - self._now()).days < days

    def _refusals(self, state: State) -> Iterator[str]:
        if self._renew_days >= 365 * self._node_years:
            yield (
                f"a certificate that ends within {self._renew_days} days was to be renewed, "
                f"and a new one lasts {365 * self._node_years}; take fewer days"
            )
        if state.authority.serial and not state.authority.key:
            yield (
                f"{self._directory}/ca.pem is there, its key ca.key is not; restore it from your backup, "
                "or move the directory away to begin with a new authority, which every node must then learn"
            )
        issued = sorted(name for name, pair in state.nodes.items() if pair.serial)
        if issued and not state.authority.serial:
            yield f"{self._directory} has certificates of {', '.join(issued)} but no ca.pem; restore it from a backup"
        for name, pair in state.nodes.items():
            if state.authority.serial and not pair.trusted:
                yield (
                    f"the certificate of {name} was not issued by {self._directory}/ca.pem; "
                    f"move {self._directory}/nodes/{name}.pem away to have it issued again"
                )

    def _warnings(self, state: State) -> Iterator[str]:
        for path, pair in self._pairs(state):
            if self._ends_within(pair, WARN_BEFORE):
                remedy = "make a new authority" if pair is state.authority else "run playbooks/renew_certificates.yml"
                yield f"the certificate of {path.stem} ends on {pair.not_after[:10]}; {remedy} before that day"

    # The changes

    def _make_directory(self) -> None:
        # The mode is for the last directory alone, so the one above is made on its own.
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory.chmod(0o700)

    def _key(self, path: Path) -> Any:
        """Load the key, or make it: a run that was killed after writing a key goes on with it."""
        if not path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            text = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            _write(path, text, 0o600)
        return serialization.load_pem_private_key(path.read_bytes(), password=None)

    def _builder(self, subject: str, issuer: Any, public_key: Any, years: int) -> Any:
        now = self._now()
        names = [x509.NameAttribute(NameOID.COMMON_NAME, subject)]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(issuer or x509.Name(names))
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(VALID_FROM)
            .not_valid_after(now + datetime.timedelta(days=365 * years))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        )

    def _make_authority(self) -> None:
        key = self._key(self._directory / "ca.key")
        builder = self._builder(f"personal.cluster {self._cluster}", None, key.public_key(), self._ca_years)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        _write(self._directory / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    def _make_node(self, wanted: Wanted) -> None:
        (self._directory / "nodes").mkdir(mode=0o700, exist_ok=True)
        signer = self._certificate(self._directory / "ca.pem")
        key = self._key(self._directory / "nodes" / f"{wanted.name}.key")
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in wanted.addresses]
        builder = self._builder(wanted.name, signer.subject, key.public_key(), self._node_years)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            # Not critical: libvirt and QEMU before 10 refuse a critical usage without key encipherment,
            # which makes no sense for an elliptic curve key.
            .add_extension(_usage(digital_signature=True), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .sign(self._key(self._directory / "ca.key"), hashes.SHA256())
        )
        path = self._directory / "nodes" / f"{wanted.name}.pem"
        _write(path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)

    # For people

    def view(self, state: State) -> dict[str, Any]:
        """Return serial numbers, names and dates; never a key."""

        def shown(pair: Pair) -> dict[str, Any]:
            about: dict[str, Any] = {
                "serial": pair.serial,
                "not_after": pair.not_after,
                "key_mode": f"{pair.key_mode:04o}",
            }
            if pair.names or pair.addresses:
                about = {**about, "names": list(pair.names), "addresses": list(pair.addresses)}
            return about if pair.key or pair.serial else {}

        return {
            "directory_mode": "" if state.mode is None else f"{state.mode:04o}",
            "authority": shown(state.authority),
            "certificates": {name: shown(pair) for name, pair in state.nodes.items()},
        }


def _issued_by(certificate: Any, signer: Any) -> bool:
    try:
        certificate.verify_directly_issued_by(signer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _alternatives(certificate: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    names = found.get_values_for_type(x509.DNSName)
    return tuple(sorted(names)), tuple(sorted(str(ip) for ip in found.get_values_for_type(x509.IPAddress)))


def _usage(**given: bool) -> Any:
    uses = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign "
        "encipher_only decipher_only"
    ).split()
    return x509.KeyUsage(**{use: given.get(use, False) for use in uses})
