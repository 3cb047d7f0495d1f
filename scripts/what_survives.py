"""Writes docs/what-survives-what.md from the tests with ``@pytest.mark.survives(danger, outcome)``.

python scripts/what_survives.py            # writes the page
python scripts/what_survives.py --check    # exit status 1 if it is not current
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "what-survives-what.md"
_BEGINNING = """# What survives what

Each row is a test. `python scripts/what_survives.py` writes this page from the tests with
`@pytest.mark.survives(danger, outcome)`. `python scripts/fuzz.py --seed N --minutes M` tries combinations that no test
has, and stops at the first traceback, hang, lost row or touched file.

| what happens | what comes of it | test |
|---|---|---|
"""


def rows() -> Iterator[tuple[str, str, str]]:
    """Danger, outcome and test of each marked test, in the order of the files."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.survives":
                    danger, outcome = map(ast.literal_eval, decorator.args)
                    yield danger, outcome, f"`{path.relative_to(ROOT).as_posix()}`: `{node.name}`"


def page() -> str:
    """The content of the page."""
    return _BEGINNING + "".join(f"| {' | '.join(row)} |\n" for row in rows())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
