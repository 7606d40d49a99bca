# SPDX-License-Identifier: GPL-3.0-or-later
"""How systemd names the units of paths, and the order of guests after the mounts of their pools."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest
from ansible_collections.personal.cluster.plugins.filter.systemd import systemd_path

ROLE = Path(__file__).parents[2] / "roles" / "hypervisor"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        # What systemd-escape --path of systemd 252 prints.
        ("/srv/gv0", "srv-gv0"),
        ("/srv/my-vol", "srv-my\\x2dvol"),
        ("/", "-"),
        ("//srv//x/", "srv-x"),
        ("/srv/a.b/.c", "srv-a.b-.c"),
        ("/.hidden/x", "\\x2ehidden-x"),
        ("/srv/ä b", "srv-\\xc3\\xa4\\x20b"),
        ("/srv/a:b_c@d", "srv-a:b_c\\x40d"),
        ("/srv/x\\y", "srv-x\\x5cy"),
        ("/-/--", "\\x2d-\\x2d\\x2d"),
    ],
)
def test_a_path_is_escaped_as_systemd_does(path: str, name: str) -> None:
    assert systemd_path(path) == name


@pytest.mark.parametrize("template", ["libvirt-guests.service.conf.j2", "personal-cluster-guests.service.j2"])
def test_guests_start_after_and_stop_before_the_mounts_of_their_pools(template: str) -> None:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["personal.cluster.systemd_path"] = systemd_path
    pools = [{"name": name, "mount": f"/srv/{name}"} for name in ("gv0", "my-vol")]
    text = environment.from_string((ROLE / "templates" / template).read_text()).render(hypervisor_pools=pools)
    assert "After=srv-gv0.mount\nAfter=srv-my\\x2dvol.mount\n" in text
