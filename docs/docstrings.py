"""Docstrings for the site: doctests become code blocks, and roles like :class:`wn_dqn.Run` become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:\w+:)?\w+:`~?([^`]+)`")


class AsMarkdown(griffe.Extension):
    """Rewrites every docstring that mkdocstrings shows."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called by griffe for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    """`text` in Markdown: a paragraph with ``>>>`` in it is a doctest from there to its end."""
    paragraphs = _ROLE.sub(r"`\1`", text).replace("``", "`").split("\n\n")
    return "\n\n".join(_fenced(paragraph) for paragraph in paragraphs)


def _fenced(paragraph: str) -> str:
    before, prompt, rest = paragraph.partition(">>> ")
    return f"{before}\n```pycon\n{prompt}{rest.rstrip()}\n```" if prompt else paragraph
