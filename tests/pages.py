"""The pages of the documentation: their blocks, and the commands in them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "evidence" / "README.md"])
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
_FILE = re.compile(r"# ([\w-]+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    """python, sh, console, yaml, ... or empty"""
    text: str

    @property
    def file(self) -> str | None:
        """The file that it is to be written to: its first line names it."""
        named = _FILE.match(self.text)
        return named[1] if named else None

    def lines(self) -> list[str]:
        """The commands in it, without prompts, comments and the output between them."""
        if self.kind == "sh":
            lines = self.text.splitlines()
        else:
            lines = [line[2:] for line in self.text.splitlines() if line.startswith(("$ ", "> "))]
        return [line for line in lines if line and not line.startswith("#")]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in their order."""
    return [Block(kind, text) for kind, text in _BLOCK.findall(page.read_text(encoding="utf-8"))]


def words(line: str) -> list[str]:
    """The words of a command, without what a shell would do with a failure."""
    return shlex.split(line.removesuffix(" || true"), comments=True)


def prose(text: str) -> str:
    """`text` without blocks, pictures, addresses and headings: what a reader reads as sentences."""
    text = _BLOCK.sub("", text)
    text = re.sub(r"^(#.*|\|[-:| ]+\|)$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)


def sentences(text: str) -> list[str]:
    """The sentences of `text`; a cell of a table and an item of a list end one, too."""
    separate = re.sub(r"^(- |\d+\. )", "\n\n", prose(text), flags=re.MULTILINE)
    separate = re.sub(r" ?\| ?", "\n\n", separate)
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", separate)]
    found = [part.strip() for paragraph in paragraphs for part in re.split(r"(?<=[.!?])\s+", paragraph)]
    return [sentence for sentence in found if sentence]


def longest_but_a_tenth(text: str) -> int:
    """The 90th percentile of the number of words in a sentence."""
    lengths = sorted(len(sentence.split()) for sentence in sentences(text))
    return lengths[int(0.9 * len(lengths))]
