"""Text that comes from outside: names of runs and games, columns of tables."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""`text` with every character that cannot be shown written out, like ``\x1b``. Line breaks stay.

    Such characters move a terminal's cursor, and are not allowed in SVG and HTML.
    """
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )
