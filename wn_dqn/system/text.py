"""Formats text for people, and escapes untrusted text: names of runs and games, columns of tables."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""`text` with every unprintable character escaped, like ``\x1b``. Line breaks are kept.

    Such characters control a terminal, and are not allowed in SVG and HTML.
    """
    return "".join(
        char if char.isprintable() or char == "\n" else char.encode("unicode_escape").decode() for char in text
    )


def score_text(score: float) -> str:
    """A score as text for tables and messages, with two decimals if it is small."""
    return f"{score:,.1f}" if abs(score) >= 10 else f"{score:.2f}"


def number_of(count: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def time_text(hours: float) -> str:
    """A time in a suitable unit: 40 seconds, 90 minutes, 7.5 hours, 3.2 days."""
    seconds = hours * 3600
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    if hours < 2:
        return f"{seconds / 60:.0f} minutes"
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:,.1f} days"
