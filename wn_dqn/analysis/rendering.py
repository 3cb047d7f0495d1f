"""Pages from templates: Python gives the values, a file in ``templates/`` the page. Values are always escaped.

jinja2 is imported by the function that needs it: no command but those that write a page waits for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from wn_dqn.system.text import printable

_FOLDER = Path(__file__).with_name("templates")


def render_html(template: str, **values: Any) -> str:
    """The HTML page that a template makes of `values`."""
    return _render(template, values, escape=True, finalize=_shown)


def render_markdown(template: str, **values: Any) -> str:
    """The Markdown page that a template makes of `values`; those it marks ``| safe`` are taken as Markdown."""
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
    """Whether it is set flush right in a table."""
    return re.fullmatch(r"-?[\d,.]+%?( of \d+)?", text) is not None


def _shown(value: Any) -> Any:
    """`value` as a page shows it: a name may hold characters that cannot be shown."""
    return printable(value) if type(value) is str else value


def _shown_in_markdown(value: Any) -> str:
    """`value` as plain text of one line: no character of it is taken for Markdown or HTML."""
    if hasattr(value, "__html__"):  # marked as safe
        return str(value)
    line = " ".join(printable(str(value)).split())
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", line)
