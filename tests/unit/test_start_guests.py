# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that starts guests after a boot, with a stand-in for libvirt."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import jinja2
import pytest
from ansible_collections.personal.cluster.plugins.filter.systemd import systemd_path
from plays import REPOSITORY

ROLE = REPOSITORY / "roles/hypervisor"


class LibvirtError(Exception):
    """What libvirt raises."""

    def get_error_code(self) -> int:
        return Libvirt.VIR_ERR_OPERATION_INVALID


class Libvirt(ModuleType):
    """The names of the module libvirt that the program uses."""

    VIR_CONNECT_LIST_DOMAINS_ACTIVE = 1
    VIR_CONNECT_LIST_DOMAINS_INACTIVE = 2
    VIR_CONNECT_LIST_DOMAINS_AUTOSTART = 1024
    VIR_DOMAIN_XML_INACTIVE = 2
    VIR_ERR_OPERATION_INVALID = 55
    libvirtError = LibvirtError


class Guest:
    """A guest with one image."""

    def __init__(self, name: str, image: Path, *, autostart: bool = True) -> None:
        self._name, self._image, self.autostart = name, image, autostart
        self.active = False
        self.refuses = False

    def name(self) -> str:
        return self._name

    def UUIDString(self) -> str:
        return f"uuid-of-{self._name}"

    def XMLDesc(self, _flags: int) -> str:
        return f"<domain><devices><disk device='disk'><source file='{self._image}'/></disk></devices></domain>"

    def isActive(self) -> bool:
        return self.active

    def create(self) -> None:
        if self.active or self.refuses:
            raise LibvirtError
        self.active = True


class Connection:
    """A libvirtd with these guests."""

    def __init__(self, *guests: Guest) -> None:
        self.guests = guests

    def listAllDomains(self, flags: int) -> list[Guest]:
        active = bool(flags & Libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        marked = bool(flags & Libvirt.VIR_CONNECT_LIST_DOMAINS_AUTOSTART)
        return [guest for guest in self.guests if guest.active is active and (guest.autostart or not marked)]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setitem(sys.modules, "libvirt", Libvirt("libvirt"))
    spec = importlib.util.spec_from_file_location("start_guests", ROLE / "files/start_guests.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "there.img"
    path.touch()
    return path


def test_a_guest_that_was_shut_down_is_not_started_again_while_another_waits(
    program: ModuleType, image: Path, tmp_path: Path
) -> None:
    late, web = Guest("late", tmp_path / "late.img"), Guest("web", image)
    cluster, notes = Connection(late, web), tmp_path / "run" / "notes"
    waits = [f"guest late: not there: {tmp_path}/late.img"]
    assert program.start_guests(cluster, notes) == waits and web.active
    web.active = False
    assert program.start_guests(cluster, notes) == waits and not web.active
    (tmp_path / "late.img").touch()
    assert program.start_guests(cluster, notes) == [] and late.active and not web.active


def test_a_guest_that_somebody_else_started_and_shut_down_is_left_alone(
    program: ModuleType, image: Path, tmp_path: Path
) -> None:
    web, other = Guest("web", image), Guest("other", image, autostart=False)
    web.active = other.active = True
    cluster, notes = Connection(web, other), tmp_path / "notes"
    assert program.start_guests(cluster, notes) == []
    web.active = other.active = False
    other.autostart = True
    assert program.start_guests(cluster, notes) == [] and not web.active and not other.active


def test_the_next_boot_starts_what_was_shut_down(program: ModuleType, image: Path, tmp_path: Path) -> None:
    web = Guest("web", image)
    assert program.start_guests(Connection(web), tmp_path / "notes") == []
    web.active = False
    # /run is empty then.
    assert program.start_guests(Connection(web), tmp_path / "emptied") == [] and web.active


def test_a_guest_that_could_not_start_is_tried_again(program: ModuleType, image: Path, tmp_path: Path) -> None:
    web = Guest("web", image)
    web.refuses = True
    assert len(program.start_guests(Connection(web), tmp_path / "notes")) == 1
    web.refuses = False
    assert program.start_guests(Connection(web), tmp_path / "notes") == [] and web.active


def test_guests_start_where_nothing_can_be_noted(program: ModuleType, image: Path, tmp_path: Path) -> None:
    web, mail = Guest("web", image), Guest("mail", image)
    problems = program.start_guests(Connection(web, mail), image / "notes")
    assert web.active and mail.active
    assert [problem.split(": ")[0] for problem in problems] == [
        f"guest {name} runs, and is started again when it is shut down" for name in ("web", "mail")
    ]


def test_what_was_noted_outlives_a_failed_attempt_and_not_the_boot() -> None:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["personal.cluster.systemd_path"] = systemd_path
    text = (ROLE / "templates/personal-cluster-guests.service.j2").read_text()
    unit = environment.from_string(text).render(hypervisor_pools=[]).splitlines()
    assert {"RuntimeDirectory=personal-cluster-guests", "RuntimeDirectoryPreserve=restart"} <= set(unit)
    assert 'default="/run/personal-cluster-guests"' in (ROLE / "files/start_guests.py").read_text()
