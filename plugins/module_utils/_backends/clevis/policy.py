# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy as it was asked for: one tang server, the TPM, or a threshold over several of them and of further ones."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.tokens import (
    NONSENSE,
    Json,
    advertised,
    exchanging,
    in_order,
    pcr_ids,
    server,
)

# The node's own TPM stands beside the servers under this name.
TPM = "tpm2"
LAST_PCR = 23


@dataclass(frozen=True)
class Policy:
    """What may unlock.

    ``pin`` is tang, tpm2 or sss; ``tang`` holds URL and thumbprint, an empty one where none is pinned; ``adv`` the
    advertisements that were kept, by URL.
    """

    pin: str
    tang: tuple[tuple[str, str], ...] = ()
    tpm2: Optional[Mapping[str, Any]] = None
    sss: tuple[Policy, ...] = ()
    threshold: int = 1
    adv: Mapping[str, Json] = field(default_factory=dict)

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Policy:
        """Build a policy from the module's parameters."""
        servers = params.get("tang") or []
        tang = tuple((server(item["url"]), item.get("thp") or "") for item in servers)
        adv = {server(item["url"]): item["adv"] for item in servers if item.get("adv") is not None}
        sss = tuple(cls.of({"pin": "sss", **item}) for item in params.get("sss") or [])
        policy = cls(params.get("pin") or "sss", tang, params.get("tpm2"), sss, params["threshold"], adv)
        if params.get("pin") or policy.count != 1 or sss:
            return policy
        return replace(policy, pin="tang" if tang else "tpm2")

    @property
    def count(self) -> int:
        """How many pins the threshold counts."""
        return len(self.tang) + len(self.sss) + (self.tpm2 is not None)

    @property
    def servers(self) -> tuple[tuple[str, str], ...]:
        """All servers with their thumbprints, those of inner thresholds included."""
        return self.tang + tuple(found for inner in self.sss for found in inner.servers)

    @property
    def kept(self) -> tuple[tuple[str, Json], ...]:
        """All advertisements that were kept, each with its URL, those of inner thresholds included."""
        return (*self.adv.items(), *(found for inner in self.sss for found in inner.kept))

    def opens_with(self, answering: Collection[str]) -> bool:
        """Whether these servers, and the TPM where it is among them, are enough to unlock."""
        found = [url in answering for url, _ in self.tang] + [inner.opens_with(answering) for inner in self.sss]
        return sum(found) + (self.tpm2 is not None and TPM in answering) >= self.threshold

    @property
    def alone(self) -> list[str]:
        """What unlocks by itself, though more than one is asked for: it stands at several depths."""
        return [source for source in self.sources if self.threshold > 1 and self.opens_with([source])]

    @property
    def asks_tpm(self) -> bool:
        """Whether the node's TPM is anywhere in the policy."""
        return self.tpm2 is not None or any(inner.asks_tpm for inner in self.sss)

    @property
    def sources(self) -> tuple[str, ...]:
        """All that is asked to unlock: servers, and the TPM."""
        return (*dict.fromkeys(url for url, _ in self.servers), *((TPM,) if self.asks_tpm else ()))

    def canonical(self) -> Json:
        """Return the policy in the one form in which two of them can be compared."""
        pins: list[Json] = [{"tang": {"url": url}} for url, _ in self.tang]
        pins += [{"tpm2": _settings(self.tpm2)}] if self.tpm2 is not None else []
        pins += [inner.canonical() for inner in self.sss]
        return {"sss": {"t": self.threshold, "pins": in_order(pins)}} if self.pin == "sss" else pins[0]

    def arguments(self, silent: Collection[str] = ()) -> list[str]:
        """Return pin and configuration as clevis wants them.

        :param silent: servers that clevis cannot ask: it gets the advertisement that was kept.
        """
        return [self.pin, json.dumps(self._config({url: {"adv": adv} for url, adv in self.kept if url in silent}))]

    def _config(self, kept: Mapping[str, Json]) -> Json:
        tang = [{"url": url, "thp": thp, **kept.get(url, {})} for url, thp in self.tang]
        tpm2 = [_settings(self.tpm2)] if self.tpm2 is not None else []
        if self.pin != "sss":
            return (tang or tpm2)[0]
        pins = {"tang": tang, "tpm2": tpm2, "sss": [inner._config(kept) for inner in self.sss]}
        return {"t": self.threshold, "pins": {pin: configs for pin, configs in pins.items() if configs}}

    def faults(self) -> list[str]:
        """Return what is wrong with the policy whatever servers and TPM say."""
        thumbprints, kept = dict(self.servers), dict(self.kept)
        found = [f"{url} is pinned to two keys" for url, thp in self.servers if thumbprints[url] != thp]
        found += [f"{url} has two advertisements" for url, adv in self.kept if kept[url] != adv]
        found += [fault for url, adv in self.kept if (fault := _adv_fault(url, adv))]
        return self._faults() + sorted(set(found))

    def _faults(self) -> list[str]:
        urls = [url for url, _ in self.tang]
        found = [f"{url} is named twice" for url in sorted(set(urls)) if urls.count(url) > 1]
        if not self.count:
            found.append("the policy names no tang server, no TPM and no further threshold")
        elif self.threshold > self.count:
            found.append(f"threshold {self.threshold} exceeds {self.count} pin{'s' if self.count > 1 else ''}")
        if self.threshold < 1:
            found.append(f"threshold {self.threshold} lets anybody unlock; it is at least 1")
        if self.pin != "sss" and self.count > 1:
            found.append(f"pin {self.pin} takes one server or the TPM alone; use pin sss for several")
        elif self.pin == "tang" and self.count and not self.tang:
            found.append("pin tang needs a server; name one, or leave pin out")
        elif self.pin == "tpm2" and self.count and self.tpm2 is None:
            found.append("pin tpm2 needs tpm2: {}; add it, or leave pin out")
        return found + _tpm2_faults(self.tpm2 or {}) + [fault for inner in self.sss for fault in inner._faults()]


def _adv_fault(url: str, adv: Json) -> str:
    text = json.dumps(adv)
    try:
        whole = advertised(text) > exchanging(text) > frozenset()
    except NONSENSE:
        whole = False
    return "" if whole else f"adv of {url} is no advertisement; give what `curl {url}/adv` prints"


def _settings(tpm2: Mapping[str, Any]) -> Json:
    ids = pcr_ids(tpm2.get("pcr_ids") or [])
    found = {"pcr_bank": tpm2.get("pcr_bank") if ids else None, "pcr_ids": ids}
    return {name: value for name, value in found.items() if value}


def _tpm2_faults(tpm2: Mapping[str, Any]) -> list[str]:
    numbers = tpm2.get("pcr_ids") or []
    found = [
        f"PCR {number} does not exist; they are 0 to {LAST_PCR}" for number in numbers if not 0 <= number <= LAST_PCR
    ]
    if tpm2.get("pcr_bank") and not numbers:
        found.append("pcr_bank means nothing without pcr_ids; add them, or leave it out")
    return found
