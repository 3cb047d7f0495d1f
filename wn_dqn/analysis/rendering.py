"""Renders pages from the templates in ``templates/``. Values are always escaped.

jinja2 is imported inside a function, so that only commands that write a page load it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wn_dqn.system.text import printable

_FOLDER = Path(__file__).with_name("templates")


def render_html(template: str, **values: Any) -> str:
    """The HTML page of a template with `values`."""
    return _render(template, values, escape=True, finalize=_shown)


def render_markdown(template: str, **values: Any) -> str:
    """The Markdown page of a template with `values`. Values that the template marks ``| safe`` are Markdown."""
    return _render(template, values, escape=False, finalize=_shown_in_markdown)


def _render(template: str, values: dict[str, Any], *, escape: bool, finalize: Any) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=escape,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=not escape,
    )
    environment.tests["number"] = _is_number
    return environment.get_template(template).render(values)


def _is_number(text: str) -> bool:
    """Whether `text` is a number, which a table aligns to the right."""
    return re.fullmatch(r"-?[\d,.]+%?( of \d+)?", text) is not None


def _shown(value: Any) -> Any:
    """`value` with unprintable characters escaped, which a name can contain."""
    return printable(value) if type(value) is str else value


def _shown_in_markdown(value: Any) -> str:
    """`value` as one line of plain text, in which no character is interpreted as Markdown or HTML."""
    if hasattr(value, "__html__"):  # marked as safe
        return str(value)
    line = " ".join(printable(str(value)).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", line)
