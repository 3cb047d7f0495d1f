"""What `make docs` adds to the pages in this folder: generated pages and tables, and links that lead out of docs/.

mkdocs calls the functions whose names begin with ``on_``. The pages themselves stay readable without the site: their
links are those of the repository, and are rewritten here.
"""

from __future__ import annotations

import inspect
import os
import re
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from wn_dqn.cli.main import cli
from wn_dqn.config.files import setting_help
from wn_dqn.config.schema import Settings

ROOT = Path(__file__).resolve().parents[1]
COPIES = {
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "evidence.md": "evidence/README.md",
}
"""pages of the site that are files elsewhere in the repository"""
ELSEWHERE = {**{path: page for page, path in COPIES.items()}, "README.md": "index.md"}
_FENCE = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let examples in the help texts keep their lines: click marks such a paragraph by a backspace."""
    commands: list[click.Command] = [cli]
    for command in commands:
        commands += command.commands.values() if isinstance(command, click.Group) else []
        command.help = with_fences(inspect.cleandoc(command.help or ""))
    return config


def with_fences(text: str) -> str:
    """The paragraphs of a help text that click would not wrap, as code blocks."""
    return re.sub(r"\x08\n(.*?)(?=\n\n|\n?\Z)", r"```text\n\1\n```", text, flags=re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the copies, and the files of the repository that pages link to."""
    for page, path in COPIES.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text(encoding="utf-8")))
    linked = {target for file in files.documentation_pages() for target in _files_linked(file)}
    for path in sorted(linked):
        files.append(File.generated(config, f"files/{path}", abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links, and put the table of settings in its place."""
    markdown = markdown.replace("<!-- settings -->", settings_tables())
    source = _source(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        where = site_target(source, target)
        return text if where is None else f"[{text}]({where}{anchor})"

    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in _FENCE.split(markdown))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """An option without a default has none: mkdocs-click prints click's mark for that."""
    return html.replace("<code>Sentinel.UNSET</code>", "")


def site_target(source: str, target: str) -> str | None:
    """Where a link of the repository's file `source` leads on the site; None for a folder, which has no page."""
    if "://" in target or target.startswith("mailto:"):
        return target
    path = os.path.normpath(os.path.join(os.path.dirname(source), target)).replace(os.sep, "/")
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    return None if (ROOT / path).is_dir() else f"files/{path}"


def settings_tables(model: type[BaseModel] = Settings) -> str:
    """A table for each section of the settings: key, default, meaning."""
    rows = setting_help(model)
    text = [_table("At the top", "", [row for row in rows if "." not in row[0]])]
    for name, field in model.model_fields.items():
        section: Any = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            about = " ".join((section.__doc__ or "").split())
            text.append(_table(name, about, [row for row in rows if row[0].startswith(f"{name}.")]))
    return "\n\n".join(text)


def _table(title: str, about: str, rows: list[tuple[str, str, str]]) -> str:
    head = f"## {title}\n\n{_plain(about)}\n\n| setting | default | meaning |\n|---|---|---|\n"
    return head + "\n".join(f"| `{key}` | `{default}` | {_plain(text)} |" for key, default, text in rows)


def _plain(text: str) -> str:
    """`text`, in which nothing is Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", text)


def _source(page: str) -> str:
    return COPIES.get(page, f"docs/{page}")


def _files_linked(file: File) -> set[str]:
    source = _source(file.src_uri)
    text = "".join(part for part in _FENCE.split(file.content_string) if not part.startswith("```"))
    targets = (site_target(source, match[2]) for match in _LINK.finditer(text))
    return {target.removeprefix("files/") for target in targets if target and target.startswith("files/")}
