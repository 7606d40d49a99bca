#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Stands in for the Python that glusterd's gsyncd wrapper starts two dozen times, one after the other, whenever glusterd
# starts: it writes a configuration for geo-replication, which this cluster does not use. glusterd insists on a version.
[ "$2" != --version ] || echo gsyncd
