# SPDX-License-Identifier: GPL-3.0-or-later
"""Small steps in libvirt's XML that reading and patching share."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Optional


def child(parent: ET.Element, tag: str) -> ET.Element:
    """Return the first child ``tag``, made when it is missing."""
    found = parent.find(tag)
    return ET.SubElement(parent, tag) if found is None else found


def attribute(parent: ET.Element, tag: str, name: str) -> Optional[str]:
    """Return an attribute of the first child ``tag``, or nothing when either is missing."""
    found = parent.find(tag)
    return None if found is None else found.get(name)


def set_attributes(element: ET.Element, **wanted: str) -> bool:
    """Set attributes; return whether one differed."""
    differs = any(element.get(name) != value for name, value in wanted.items())
    element.attrib.update(wanted)
    return differs


def kibibytes(element: Optional[ET.Element]) -> int:
    """Return an amount of memory in KiB."""
    # Libvirt prints memory in KiB, whatever unit it was defined with.
    return int(element.text) if element is not None and element.text else 0
