# SPDX-License-Identifier: GPL-3.0-or-later
"""Read, plan, apply, verify: what every module of this collection shares.

A module describes its resource as a :class:`Resource`; :func:`run` does the rest, once for
all modules: check mode, diff, refusals, verification, redaction and the result.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.personal.cluster.plugins.module_utils._errors import ClusterError, NotYet, Refused
from ansible_collections.personal.cluster.plugins.module_utils._lock import lock_file, wait_alone
from ansible_collections.personal.cluster.plugins.module_utils._run import redact
from ansible_collections.personal.cluster.plugins.module_utils._secrets import NO_TEXT, no_texts

State = TypeVar("State")
View = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One change: a sentence for a person, and the call that makes it."""

    sentence: str
    apply: Callable[[], None]


@dataclass
class Plan(Generic[State]):
    """What leads from the current to the desired state.

    ``refusals`` are sentences; one is enough to stop before the first step. ``predicted`` is
    the state after all steps, as far as it can be known beforehand.
    """

    predicted: State
    steps: list[Step] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Resource(Protocol[State]):
    """What a module manages. ``read`` and ``plan`` have no side effects; ``plan`` is pure."""

    def read(self) -> State:
        """Look at the system once.

        :raises NotYet: the tool or its daemon is not there yet, and never was used.
        """
        ...

    def blank(self) -> State:
        """Return the state of a host on which the tool was never used: what check mode plans from."""
        ...

    def plan(self, state: State) -> Plan[State]:
        """Return the ordered steps from ``state`` to the desired state."""
        ...

    def view(self, state: State) -> View:
        """Return ``state`` as plain data, without secrets: the result and the diff's two sides."""
        ...


def _redacted(value: Any, secrets: Collection[str]) -> Any:
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, dict):
        return {key: _redacted(item, secrets) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_redacted(item, secrets) for item in value]
    return value


def converge(resource: Resource[State], *, check: bool, done: list[str]) -> dict[str, Any]:
    """Bring ``resource`` to its desired state and return the module's result.

    :param check: stop after planning; the result is what a run would do.
    :param done: receives the sentence of each step that was finished, also when a later one fails.
    :raises Refused: the plan holds refusals; nothing was changed.
    :raises ClusterError: a step failed, or the state did not converge.
    """
    warnings: list[str] = []
    try:
        before = resource.read()
    except NotYet as error:
        if not check:
            raise
        before = resource.blank()
        warnings.append(f"{error}; planned from nothing")
    plan = resource.plan(before)
    if plan.refusals:
        raise Refused(plan.refusals)
    warnings += plan.warnings
    after = plan.predicted if plan.steps else before
    if plan.steps and not check:
        for step in plan.steps:
            try:
                step.apply()
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                raise ClusterError(
                    f"could not {step.sentence}: {where}{error.strerror or error}; see that its filesystem has room "
                    "and can be written to"
                ) from error
            done.append(step.sentence)
        after = resource.read()
        left = resource.plan(after)
        if left.refusals or left.steps:
            rest = left.refusals + [step.sentence for step in left.steps]
            raise ClusterError("not converged, still to do: " + "; ".join(rest))
    view_before, view_after = resource.view(before), resource.view(after)
    result: dict[str, Any] = {
        "changed": bool(plan.steps),
        "actions": [step.sentence for step in plan.steps],
        **view_after,
    }
    if plan.steps:
        result["diff"] = {"before": view_before, "after": view_after}
    if warnings:
        result["warnings"] = warnings
    return result


class SecretModule(AnsibleModule):
    """A module that takes secrets: its parameters stay out of the node's journal.

    Ansible logs every invocation there and masks a secret only where it reads the same in Python's notation; a line
    break or a quote, as in every private key, leaks it.
    """

    def _load_params(self) -> None:
        """Refuse a secret that is no text, before Ansible makes text of it."""
        super()._load_params()
        for name in no_texts(self.argument_spec, self.params):
            self.fail_json(f"{name}: {NO_TEXT}; put it in quotes")

    def _log_invocation(self) -> None:
        """Log nothing."""

    def fail_json(self, msg: str, **more: Any) -> NoReturn:
        """Fail without the parameters: Ansible does not know yet which are secret when they are of a wrong type."""
        super().fail_json(msg, **{"invocation": {}, **more})
        raise AssertionError("fail_json ends the process")


def run(
    module: AnsibleModule, resource: Resource[State], secrets: Collection[str] = (), *, alone: bool = False
) -> None:
    """Converge ``resource`` and end the module with its result or its failure.

    :param alone: let one run of this module at a time look and work on this host.
    """
    done: list[str] = []
    try:
        if alone:
            wait_alone(lock_file(module._name.rpartition(".")[2]))
        result = converge(resource, check=module.check_mode, done=done)
    except ClusterError as error:
        module.fail_json(msg=redact(str(error), secrets), actions=_redacted(done, secrets), changed=bool(done))
    for warning in result.pop("warnings", []):
        module.warn(redact(warning, secrets))
    module.exit_json(**_redacted(result, secrets))


def report(module: AnsibleModule, read: Callable[[], View], secrets: Collection[str] = (), *, beside: str = "") -> None:
    """End an ``_info`` module with what ``read`` returns.

    :param beside: look only while no run of this module is at work on this host.
    """
    try:
        if beside:
            wait_alone(lock_file(beside))
        view = read()
    except ClusterError as error:
        module.fail_json(msg=redact(str(error), secrets))
    module.exit_json(changed=False, **_redacted(view, secrets))
