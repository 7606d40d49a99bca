# SPDX-License-Identifier: GPL-3.0-or-later
"""clevis: judge bindings, make and prove new ones."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

from ansible_collections.personal.cluster.plugins.module_utils._addresses import is_own_card
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis import tokens
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.policy import TPM, Policy
from ansible_collections.personal.cluster.plugins.module_utils._backends.clevis.tokens import Json
from ansible_collections.personal.cluster.plugins.module_utils._errors import (
    ClusterError,
    CommandFailed,
    NotYet,
    Refused,
)
from ansible_collections.personal.cluster.plugins.module_utils._run import Completed, Run

# The thumbprints that each server advertises; None for a server that does not answer. For the TPM: nothing where the
# node has none, None before clevis' part for it is installed.
Servers = Mapping[str, Optional[frozenset[str]]]

NO_TPM = "this node has no TPM 2.0 (no /dev/tpmrm0); enable it in the firmware, or leave tpm2 out of the policy"
SCRATCH = "personal-cluster-clevis-"
CLEVIS_SECONDS = 300.0
CURLRC = "connect-timeout = {seconds}\nmax-time = {seconds}\n"
TIMEOUT_LIMIT = 3600
TRIAL = "a trial"


class Clevis:
    """What a LUKS device needs to know of clevis; ``timeout`` is how long one server may take, in seconds."""

    def __init__(self, run: Run, timeout: int, root: Path = Path("/")) -> None:
        self._run = run
        self._root = root
        self._timeout = timeout
        self._exchanging: frozenset[str] = frozenset()
        self._silent: frozenset[str] = frozenset()
        self._failing: dict[str, str] = {}

    def parse(self, token: Json) -> Json:
        """Return ``policy`` (canonical) and ``tang_keys`` of a token.

        :raises ClusterError: the token is damaged.
        """
        return tokens.parse(token)

    def urls(self, policy: Policy) -> Collection[str]:
        """Return all that a policy asks, servers and TPM."""
        return policy.sources

    def look(self, urls: Collection[str]) -> Servers:
        """Ask each server once for its advertisement, and look for the TPM where a policy asks it.

        :raises Refused: there is no time to wait for an answer, or too much.
        """
        if not 0 < self._timeout <= TIMEOUT_LIMIT:
            raise Refused([f"tang_timeout is {self._timeout}; take 1 to {TIMEOUT_LIMIT} seconds"])
        found = {url: self._tpm() if url == TPM else self._advertised(url) for url in sorted(set(urls))}
        self._silent = frozenset(url for url, known in found.items() if known is None)
        return found

    def _advertised(self, url: str) -> Optional[frozenset[str]]:
        limit = str(self._timeout)
        try:
            answer = self._run(["curl", "-sfg", "--max-time", limit, f"{url}/adv"], ok=None, timeout=self._timeout + 30)
            if answer.rc:
                return None
            self._exchanging |= tokens.exchanging(answer.stdout)
            return tokens.advertised(answer.stdout)
        except (CommandFailed, NotYet, *tokens.NONSENSE):
            return None

    def _tpm(self) -> Optional[frozenset[str]]:
        try:
            self._run(["clevis-encrypt-tpm2", "--summary"], ok=None)
        except NotYet:
            return None
        there = os.environ.get("TPM2TOOLS_TCTI") or list((self._root / "dev").glob("tpmrm*"))
        return frozenset({TPM}) if there else frozenset()

    def canonical(self, policy: Policy) -> Json:
        """Return the policy as it would be read back from a token."""
        return policy.canonical()

    def agree(self, found: Json, wanted: Json) -> bool:
        """Tell whether a binding has the wanted policy."""
        return tokens.agree(found, wanted)

    def sentence(self, canonical: Json) -> str:
        """Return a canonical policy in words."""
        return tokens.sentence(canonical)

    def faults(self, policy: Policy) -> list[str]:
        """Return what is wrong with a policy whatever the servers say."""
        own = [url for url, _ in policy.servers if is_own_card(tokens.server_name(url))]
        return policy.faults() + [
            f"{url} is this node itself: it would unlock its disks for whoever carries it away; leave it out of the "
            "policy of this node"
            for url in dict.fromkeys(own)
        ]

    def obstacles(self, policy: Policy, servers: Servers) -> list[str]:
        """Return why a new binding must not be made with what the servers advertise."""
        found = []
        if policy.asks_tpm and servers.get(TPM) == frozenset():
            found.append(NO_TPM)
        kept = {url: json.dumps(adv) for url, adv in policy.kept if servers.get(url) is None}
        found += [
            f"the keys in adv of {url} did not sign it; give what `curl {url}/adv` prints"
            for url, adv in kept.items()
            if not self._signed(adv)
        ]
        signs_nothing = self._exchanging.union(*map(tokens.exchanging, kept.values()))
        for url, thp in policy.servers:
            known = tokens.advertised(kept[url]) if url in kept else servers.get(url)
            if known is None:
                continue
            if not thp:
                found.append(f"no thumbprint is pinned for {url}; set thp to what tang-show-keys prints on that server")
            elif thp in signs_nothing:
                found.append(f"server {url} signs nothing with the key {thp}; pin what tang-show-keys prints there")
            elif thp not in known:
                found.append(
                    f"server {url} does not advertise the key {thp}; compare with tang-show-keys on that server"
                )
        return found

    def _signed(self, adv: str) -> bool:
        # As clevis does, which would refuse it when the disk was formatted already.
        keys = json.dumps({"keys": list(filter(tokens.signs, tokens.public_keys(adv)))})
        try:
            return not self._run(["jose", "jws", "ver", "-i", adv, "-k", "-", "-a"], stdin=keys, ok=None).rc
        except NotYet:
            return True

    def silent(self, policy: Policy, servers: Servers) -> list[str]:
        """Return what of the policy does not answer."""
        silent = [source for source in policy.sources if servers.get(source) is None]
        return ["the TPM (clevis-tpm2 is not installed)" if source == TPM else source for source in silent]

    def missing(self, policy: Policy, servers: Servers) -> list[str]:
        """Return what must answer before a new binding can be made and proven.

        An advertisement that was kept replaces its server's, as long as the others are enough to unlock.
        """
        kept = dict(policy.kept) if self.opens(policy, servers) else {}
        return [source for source in self.silent(policy, servers) if source not in kept]

    def opens(self, policy: Policy, servers: Servers) -> bool:
        """Tell whether what answers is enough to unlock."""
        return policy.opens_with([source for source in policy.sources if servers.get(source) is not None])

    def outdated(self, binding: Json, policy: Policy, servers: Servers) -> str:
        """Return why a binding with the right policy needs new keys; an empty text when it does not."""
        pins = dict(policy.servers)
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

    def bind(self, device: str, slot: int, policy: Policy, passphrase: str, keyfile: str) -> None:
        """Add a binding in a free keyslot. clevis itself puts the header back when it fails half-way.

        :raises ClusterError: the binding was not made.
        """
        argv = ["clevis", "luks", "bind", "-f", "-k", keyfile or "-", "-s", str(slot), "-d", device]
        done = self._call([*argv, *policy.arguments(self._silent)], passphrase)
        if done.rc:
            raise ClusterError(f"{device} was not bound: {_reason(done.stderr)}")

    def fails(self, policy: Policy) -> str:
        """Return why nothing that is bound to a policy would come back now, trying it without a disk.

        One answer is good for a run: an empty text when it comes back.
        """
        key = json.dumps([policy.canonical(), policy.servers])
        if key not in self._failing:
            self._failing[key] = self._fails(policy)
        return self._failing[key]

    def _fails(self, policy: Policy) -> str:
        try:
            bound = self._call(["clevis", "encrypt", *policy.arguments(self._silent)], TRIAL)
            back = self._call(["clevis", "decrypt"], bound.stdout) if bound.rc == 0 else bound
        except CommandFailed as error:
            return str(error)
        if back.rc == 0 and back.stdout == TRIAL:
            return ""
        asked = ", ".join("the TPM" if source == TPM else source for source in policy.sources)
        said = back.stderr.strip().splitlines() or ["something else came back"]
        return f"of {asked} too little answers as it should ({said[-1]})"

    def secret(self, device: str, slot: int) -> str:
        """Return what the binding in ``slot`` yields; an empty text when it does not decrypt.

        It is not tried, as `clevis luks pass` does: that is content with what opens another keyslot.
        """
        dump = self._run(["cryptsetup", "luksDump", "--dump-json-metadata", device], ok=None)
        found = json.loads(dump.stdout)["tokens"] if dump.rc == 0 else {}
        bound = [found[number] for number in sorted(found, key=int) if str(slot) in found[number]["keyslots"]]
        jwe = next((tokens.compact(token["jwe"]) for token in bound if token["type"] == "clevis"), "")
        # Not by way of `clevis`, which does not tell a part that is not installed from one that fails.
        done = self._call(["clevis-decrypt"], jwe)
        return done.stdout.rstrip("\n") if done.rc == 0 else ""

    def unlock(self, device: str, name: str) -> bool:
        """Open the device through its bindings; tell whether that worked."""
        return self._call(["clevis", "luks", "unlock", "-d", device, "-n", name], None).rc == 0

    def _call(self, argv: list[str], stdin: Optional[str]) -> Completed:
        with self._patience() as env:
            return self._run(argv, stdin=stdin, ok=None, timeout=CLEVIS_SECONDS, env=env)

    @contextmanager
    def _patience(self) -> Iterator[dict[str, str]]:
        # In memory, since clevis copies the whole header; the copy of one that was killed is removed here.
        memory = self._root / "run"
        for stale in memory.glob(f"{SCRATCH}*"):
            shutil.rmtree(stale, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=memory if os.access(memory, os.W_OK) else None) as home:
            # clevis calls curl without a limit; curl reads one from here.
            Path(home, ".curlrc").write_text(CURLRC.format(seconds=self._timeout))
            yield {"CURL_HOME": home, "TMPDIR": home}


def _reason(stderr: str) -> str:
    """Return the one sentence of clevis' complaints that an operator can act on."""
    if "did not sign the advertisement" in stderr:
        return "the server did not sign with the pinned thp; compare with tang-show-keys on that server"
    if "A TPM2 device with" in stderr:
        return NO_TPM
    # The pin of a threshold is told with its whole configuration.
    stderr = "\n".join(line for line in stderr.splitlines() if "Unable to perform encryption with PIN" not in line)
    if "Unable to validate combination of PCR bank" in stderr:
        return "the TPM has no such PCR bank; choose one that it has with pcr_bank: tpm2_getcap pcrs"
    if "Unable to fetch advertisement" in stderr:
        return "a tang server did not answer: " + stderr.strip()[-300:]
    if "Unable to update metadata" in stderr:
        return (
            "its header has no room for a second binding of that size; name fewer servers, or take the present binding "
            "away first, while the recovery passphrase opens the disk: state unbound"
        )
    # Without a passphrase that is valid, clevis lets the present bindings authorise the new one.
    if "No key available" in stderr or "Unsealing jwk from TPM failed" in stderr or not stderr.strip():
        return "no valid passphrase and no binding decrypts; pass the recovery passphrase"
    return stderr.strip()[-1000:]
