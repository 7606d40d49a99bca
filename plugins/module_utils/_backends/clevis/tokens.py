# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading clevis tokens and tang advertisements, and the one form in which two policies can be compared.

A token of type ``clevis`` carries a JWE. Its protected header is public: it names the pins, the servers and the
keys that the binding was made with. Nothing here reads or returns a secret of a binding.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError

Json = dict[str, Any]

# The parts of a JWE, in the order of its compact form.
JWE = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
THUMBPRINT_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n"), "oct": ("k", "kty")}
# What anything but the expected raises when it is read.
NONSENSE = (AttributeError, KeyError, RecursionError, TypeError, ValueError)
# What clevis writes into a token when it is not told otherwise, and no policy here can ask for.
TPM2_DEFAULTS = {"hash": "sha256", "key": "ecc"}


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public key."""
    members = {name: jwk[name] for name in THUMBPRINT_MEMBERS[jwk["kty"]]}
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def advertised(answer: str) -> frozenset[str]:
    """Return the thumbprints of all keys in a server's signed advertisement; the signature is clevis' business."""
    return frozenset(map(thumbprint, public_keys(answer)))


def exchanging(answer: str) -> frozenset[str]:
    """Return the thumbprints of those advertised keys that sign nothing: no client can pin one."""
    return frozenset(thumbprint(key) for key in public_keys(answer) if not signs(key))


def signs(key: Json) -> bool:
    """Tell whether a key of an advertisement signs."""
    return "verify" in key.get("key_ops", ["verify"])


def public_keys(answer: str) -> list[Json]:
    """Return all keys in a server's advertisement."""
    payload = json.loads(_unbase64(json.loads(answer)["payload"]))
    return list(payload["keys"])


def server(text: str) -> str:
    """Return a base URL in the one form in which two of them can be compared."""
    return text.rstrip("/")


def server_name(url: str) -> str:
    """Return the name or address in a URL, lower case; curl takes one without a scheme. Empty when there is none."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""


def pcr_ids(numbers: Iterable[Any]) -> str:
    """Return PCR numbers as clevis wants them, each once and in order."""
    return ",".join(str(number) for number in sorted({int(number) for number in numbers}))


def in_order(policies: Iterable[Json]) -> list[Json]:
    """Return the pins of a threshold in the one order in which two lists of them can be compared."""
    return sorted(policies, key=lambda policy: json.dumps(_without_bank(policy), sort_keys=True))


def _without_bank(policy: Json) -> Json:
    ((pin, settings),) = policy.items()
    if pin == "sss":
        return {pin: {**settings, "pins": [_without_bank(child) for child in settings["pins"]]}}
    return {pin: {name: value for name, value in settings.items() if name != "pcr_bank"}}


def agree(found: Json, wanted: Json) -> bool:
    """Tell whether a binding's canonical policy is the wanted one; a bank that nobody asked for is clevis' choice."""
    ((pin, there),), ((wanted_pin, asked),) = found.items(), wanted.items()
    if pin != wanted_pin:
        return False
    if pin == "sss":
        alike = there["t"] == asked["t"] and len(there["pins"]) == len(asked["pins"])
        return alike and all(map(agree, there["pins"], asked["pins"]))
    if "pcr_bank" not in asked:
        ((_, there),) = _without_bank(found).items()
    return bool(there == asked)


def sentence(canonical: Json) -> str:
    """Return a canonical policy in words."""
    ((pin, settings),) = canonical.items()
    if pin == "tang":
        return f"tang {settings['url']}"
    if pin == "sss":
        return f"{settings['t']} of ({', '.join(sentence(child) for child in settings['pins'])})"
    return " ".join([pin, *(f"{name}={value}" for name, value in sorted(settings.items()))])


def parse(token: Json) -> Json:
    """Return ``policy`` (canonical) and ``tang_keys`` of a token.

    :raises ClusterError: the token is damaged.
    """
    try:
        policy, keys = _parse(_header(token["jwe"]))
    except NONSENSE as error:
        raise ClusterError(
            f"its clevis token cannot be read ({error!r}); remove it: cryptsetup token remove"
        ) from error
    return {"policy": policy, "tang_keys": keys}


def _header(jwe: Any) -> Json:
    coded = jwe["protected"] if isinstance(jwe, dict) else jwe.split(".", 1)[0]
    header: Json = json.loads(_unbase64(coded))
    return header


def compact(jwe: Any) -> str:
    """Return what a token holds in the form that clevis decrypts."""
    return ".".join(jwe.get(part, "") for part in JWE) if isinstance(jwe, dict) else str(jwe)


def _keys(adv: Any) -> list[Json]:
    keys = adv.get("keys", [adv]) if isinstance(adv, dict) else adv
    return list(keys)


def _parse(header: Json) -> tuple[Json, list[Json]]:
    """Return the canonical policy of one JWE header and the tang keys in it."""
    about = header["clevis"]
    pin, settings = about["pin"], about.get(about["pin"], {})
    if pin == "tang":
        url = server(settings["url"])
        known = sorted(thumbprint(key) for key in _keys(settings.get("adv", [])))
        return {"tang": {"url": url}}, [{"url": url, "kid": header["kid"], "known": known}]
    if pin == "sss":
        children = [_parse(_header(jwe)) for jwe in settings["jwe"]]
        keys = [key for child in children for key in child[1]]
        return {"sss": {"t": settings["t"], "pins": in_order(child[0] for child in children)}}, keys
    return {pin: _tpm2(settings) if pin == "tpm2" else {}}, []


def _tpm2(settings: Json) -> Json:
    found: Json = {name: settings[name] for name in ("hash", "key", "pcr_bank", "pcr_digest") if name in settings}
    if settings.get("pcr_ids"):
        found["pcr_ids"] = pcr_ids(str(settings["pcr_ids"]).split(","))
    return {name: value for name, value in found.items() if value != TPM2_DEFAULTS.get(name)}
