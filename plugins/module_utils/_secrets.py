# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that YAML did not take for text: 0123456701234567 without quotes is 5744368105847, another secret."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

NO_TEXT = "without quotes YAML makes something else than text of it (0123 is 83), so it would be another secret"


def no_text(value: Any) -> bool:
    """Tell whether a secret is set and no text."""
    return value is not None and not isinstance(value, str)


def no_texts(spec: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the options of an argument specification that are secrets and no text.

    :param given: the options as they were given; once validated, all of them are text.
    """
    for name, option in spec.items():
        value = given.get(name)
        if option.get("no_log"):
            texts = value.values() if isinstance(value, Mapping) else [value]
            yield from [name] if any(map(no_text, texts)) else []
        elif "options" in option:
            items = value if isinstance(value, list) else [value]
            for item in items:
                yield from no_texts(option["options"], item if isinstance(item, Mapping) else {})
