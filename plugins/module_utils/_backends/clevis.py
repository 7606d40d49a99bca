# SPDX-License-Identifier: GPL-3.0-or-later
"""clevis: read bindings from LUKS2 tokens, judge them, make and prove new ones.

A token of type ``clevis`` carries a JWE. Its protected header is public: it names the pin, the
servers and the keys the binding was made with. Nothing here reads or returns a secret of a binding.
"""

from __future__ import annotations

import base64
import hashlib
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, CommandFailed, NotYet
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed, Run

Json = dict[str, Any]
# The thumbprints that each server advertises; None for a server that does not answer.
Servers = Mapping[str, Optional[frozenset[str]]]

CLEVIS_SECONDS = 300.0
THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "oct": ("k", "kty")}
TPM2_SETTINGS = ("hash", "key", "pcr_bank", "pcr_ids", "pcr_digest")
CURLRC = "connect-timeout = {seconds}\nmax-time = {seconds}\n"


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public key."""
    members = {name: jwk[name] for name in THUMBPRINT_MEMBERS[jwk["kty"]]}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def advertised(answer: str) -> frozenset[str]:
    """Return the thumbprints of all keys in a server's signed advertisement; the signature is clevis' business."""
    payload = json.loads(_unbase64(json.loads(answer)["payload"]))
    return frozenset(thumbprint(key) for key in payload["keys"])


def _header(jwe: Any) -> Json:
    coded = jwe["protected"] if isinstance(jwe, dict) else jwe.split(".", 1)[0]
    header: Json = json.loads(_unbase64(coded))
    return header


def _keys(adv: Any) -> list[Json]:
    keys = adv.get("keys", [adv]) if isinstance(adv, dict) else adv
    return list(keys)


def _order(policies: Iterable[Json]) -> list[Json]:
    return sorted(policies, key=lambda policy: json.dumps(policy, sort_keys=True))


def _url(text: str) -> str:
    return text.rstrip("/")


def _parse(header: Json) -> tuple[Json, list[Json]]:
    """Return the canonical policy of one JWE header and the tang keys in it."""
    about = header["clevis"]
    pin, settings = about["pin"], about.get(about["pin"], {})
    if pin == "tang":
        url = _url(settings["url"])
        known = sorted(thumbprint(key) for key in _keys(settings.get("adv", [])))
        return {"tang": {"url": url}}, [{"url": url, "kid": header["kid"], "known": known}]
    if pin == "sss":
        children = [_parse(_header(jwe)) for jwe in settings["jwe"]]
        keys = [key for child in children for key in child[1]]
        return {"sss": {"t": settings["t"], "pins": _order(child[0] for child in children)}}, keys
    return {pin: {name: settings[name] for name in TPM2_SETTINGS if name in settings}}, []


@dataclass(frozen=True)
class Policy:
    """A policy as it was asked for: one tang server, or a threshold over several (Shamir's secret sharing)."""

    tang: tuple[tuple[str, str], ...]
    threshold: int = 1
    shared: bool = False

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Policy:
        """Build a policy from the module's parameters; an empty thumbprint means that none is pinned."""
        tang = tuple((_url(server["url"]), server.get("thp") or "") for server in params["tang"])
        shared = params["pin"] == "sss" or (params["pin"] is None and len(tang) != 1)
        return cls(tang, params["threshold"], shared)

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers of the policy."""
        return tuple(url for url, _ in self.tang)

    def canonical(self) -> Json:
        """Return the policy in the one form in which two of them can be compared."""
        pins = _order({"tang": {"url": url}} for url in self.urls)
        return {"sss": {"t": self.threshold, "pins": pins}} if self.shared else pins[0]

    def arguments(self) -> list[str]:
        """Return pin and configuration as clevis wants them."""
        servers = [{"url": url, "thp": thp} for url, thp in self.tang]
        if self.shared:
            return ["sss", json.dumps({"t": self.threshold, "pins": {"tang": servers}})]
        return ["tang", json.dumps(servers[0])]


class Clevis:
    """What a LUKS device needs to know of clevis; ``timeout`` is how long one server may take, in seconds."""

    def __init__(self, run: Run, timeout: int, rotation: str = "rebind") -> None:
        self._run = run
        self._timeout = timeout
        self._rotation = rotation

    def parse(self, token: Json) -> Json:
        """Return ``policy`` (canonical) and ``tang_keys`` of a token.

        :raises ClusterError: the token is damaged.
        """
        try:
            policy, keys = _parse(_header(token["jwe"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ClusterError(
                f"its clevis token cannot be read ({error!r}); remove it: cryptsetup token remove"
            ) from error
        return {"policy": policy, "tang_keys": keys}

    def urls(self, policy: Policy) -> Collection[str]:
        """Return the servers of a policy."""
        return policy.urls

    def look(self, urls: Collection[str]) -> Servers:
        """Ask each server once for its advertisement."""
        return {url: self._advertised(url) for url in sorted(set(urls))}

    def _advertised(self, url: str) -> Optional[frozenset[str]]:
        limit = str(self._timeout)
        try:
            answer = self._run(["curl", "-sfg", "--max-time", limit, f"{url}/adv"], ok=None, timeout=self._timeout + 30)
            return advertised(answer.stdout) if answer.rc == 0 else None
        except (CommandFailed, NotYet, KeyError, TypeError, ValueError):
            return None

    def canonical(self, policy: Policy) -> Json:
        """Return the policy as it would be read back from a token."""
        return policy.canonical()

    def sentence(self, canonical: Json) -> str:
        """Return a canonical policy in words."""
        ((pin, settings),) = canonical.items()
        if pin == "tang":
            return f"tang {settings['url']}"
        if pin == "sss":
            return f"{settings['t']} of ({', '.join(self.sentence(child) for child in settings['pins'])})"
        return " ".join([pin, *(f"{name}={value}" for name, value in sorted(settings.items()))])

    def faults(self, policy: Policy) -> list[str]:
        """Return what is wrong with a policy whatever the servers say."""
        count = len(policy.tang)
        found = []
        if not count:
            found.append("the policy names no tang server")
        if not 1 <= policy.threshold <= max(count, 1):
            found.append(f"threshold {policy.threshold} does not fit {count} pins")
        if not policy.shared and count > 1:
            found.append("pin tang takes one server; use pin sss for several")
        found += [f"{url} is named twice" for url in sorted(set(policy.urls)) if policy.urls.count(url) > 1]
        return found

    def obstacles(self, policy: Policy, servers: Servers) -> list[str]:
        """Return why a new binding must not be made with what the servers advertise."""
        found = []
        for url, thp in policy.tang:
            known = servers.get(url)
            if known is None:
                continue
            if not thp:
                found.append(f"no thumbprint is pinned for {url}; set thp to what tang-show-keys prints on that server")
            elif thp not in known:
                found.append(
                    f"server {url} does not advertise the key {thp}; compare with tang-show-keys on that server"
                )
        return found

    def silent(self, policy: Policy, servers: Servers) -> list[str]:
        """Return the servers of the policy that do not answer."""
        return [url for url in policy.urls if servers.get(url) is None]

    def outdated(self, binding: Json, policy: Policy, servers: Servers) -> str:
        """Return why a binding with the right policy needs new keys; an empty text when it does not."""
        pins = dict(policy.tang)
        for key in binding["tang_keys"]:
            now = servers.get(key["url"])
            if now is None:
                continue
            thp = pins.get(key["url"], "")
            if thp in now and thp not in key["known"]:
                return f"{key['url']} is pinned to another key now"
            if key["kid"] not in now:
                return f"the key of {key['url']} was rotated"
        return ""

    def rebinds(self) -> bool:
        """Tell whether an outdated binding is to be replaced."""
        return self._rotation == "rebind"

    def reports(self) -> bool:
        """Tell whether an outdated binding deserves a warning."""
        return self._rotation == "report"

    def bind(self, device: str, slot: int, policy: Policy, passphrase: Optional[str]) -> None:
        """Add a binding in a free keyslot. clevis itself puts the header back when it fails half-way.

        :raises ClusterError: the binding was not made.
        """
        argv = ["clevis", "luks", "bind", "-f", "-k", "-", "-s", str(slot), "-d", device, *policy.arguments()]
        done = self._call(argv, passphrase or "")
        if done.rc:
            raise ClusterError(f"{device} was not bound: {_reason(done.stderr)}")

    def proves(self, device: str, slot: int) -> bool:
        """Tell whether the binding in ``slot`` yields a passphrase that the device accepts."""
        return self._call(["clevis", "luks", "pass", "-d", device, "-s", str(slot)], None).rc == 0

    def unlock(self, device: str, name: str) -> bool:
        """Open the device through its bindings; tell whether that worked."""
        return self._call(["clevis", "luks", "unlock", "-d", device, "-n", name], None).rc == 0

    def _call(self, argv: list[str], stdin: Optional[str]) -> Completed:
        with self._patience() as env:
            return self._run(argv, stdin=stdin, ok=None, timeout=CLEVIS_SECONDS, env=env)

    @contextmanager
    def _patience(self) -> Iterator[dict[str, str]]:
        # clevis calls curl without a limit; curl reads one from here.
        with tempfile.TemporaryDirectory(prefix="personal-cluster-") as home:
            Path(home, ".curlrc").write_text(CURLRC.format(seconds=self._timeout))
            yield {"CURL_HOME": home}


def _reason(stderr: str) -> str:
    """Return the one sentence of clevis' complaints that an operator can act on."""
    if "did not sign the advertisement" in stderr:
        return "the server did not sign with the pinned thp; compare with tang-show-keys on that server"
    if "Unable to fetch advertisement" in stderr:
        return "a tang server did not answer: " + stderr.strip()[-300:]
    if "No key available" in stderr or not stderr.strip():
        return "no valid passphrase and no binding decrypts; pass the recovery passphrase"
    return stderr.strip()[-1000:]
