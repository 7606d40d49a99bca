#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Succeeds when every other node of the trusted pool is connected to all of its peers, this one too.
# A glusterd that restarts is away for its peers, and one that sees too few of them stops its bricks. What this node sees
# itself does not count: that begins anew with the restart.
for name in $(sed -ns 's/^hostname1=//p' "${PEERS:-/var/lib/glusterd/peers}"/*); do
    seen=$(timeout 120 gluster --mode=script --remote-host="$name" pool list </dev/null 2>&1) || {
        echo "glusterd of $name does not answer: $seen"
        exit 1
    }
    away=$(printf '%s\n' "$seen" | awk '$NF == "Disconnected" {print $2}')
    [ -z "$away" ] || {
        echo "$name is not connected to" $away
        exit 1
    }
done
