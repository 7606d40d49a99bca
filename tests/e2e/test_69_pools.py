# SPDX-License-Identifier: GPL-3.0-or-later
"""A thin pool that fills up takes what was left of its disk, and gives back what was deleted."""

from __future__ import annotations

import pytest
from cluster import Lab, changed, wait_until

pytestmark = pytest.mark.long

NODE = "node2"
FILE = "/srv/bmv0/e2e-fill"


def pool(lab: Lab) -> tuple[int, float]:
    """Return the size of a pool in bytes, and how much of it is used, in percent."""
    size, used = lab.out(NODE, "lvs --noheadings --nosuffix --units b -o lv_size,data_percent vg_bmv0/pool").split()
    return int(size), float(used)


def test_a_pool_that_fills_up_extends_itself(lab: Lab) -> None:
    before, _ = pool(lab)
    # By its filesystem alone a pool never fills up. What a snapshot keeps of an overwritten file takes its place twice.
    overwrite = f"dd if=/dev/zero of={FILE} bs=1M count={before * 40 // 100 // 2**20} conv=notrunc,fsync"
    try:
        lab.out(NODE, f"{overwrite} && lvcreate --snapshot --name e2e vg_bmv0/data && {overwrite}", limit=900)
        wait_until("the pool is bigger", lambda: pool(lab)[0] > before, 180)
        extended, used = pool(lab)
        print(f"  {before} bytes became {extended}, {used} % of them used", flush=True)
        assert used < 90 and lab.ok(NODE, f"cp /etc/hostname {FILE}.after && sync {FILE}.after")
        layer = lab.playbook("site.yml", "--tags", "storage")
        assert layer.rc == 0 and changed(layer) == {}
    finally:
        lab.out(NODE, f"lvremove --yes vg_bmv0/e2e; rm -f {FILE} {FILE}.after && fstrim /srv/bmv0", limit=300)
    assert pool(lab)[1] < used / 2
