"""Shows the imports between the parts of a folder, called rooms: its subfolders and modules.

    \b
    python scripts/show_rooms.py                      # the rooms of wn_dqn, from the highest layer to the lowest
    python scripts/show_rooms.py wn_dqn/analysis      # the modules of one room

The exit status is 1 if there is an import cycle. Imports inside functions, and imports for types alone, count like all
others. Code that a registry names as "module:object" does not count.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import click


def package_of(folder: Path) -> str:
    """The dotted name under which `folder` is imported: the folders around it that are packages, and itself."""
    folder = folder.resolve()
    names = [folder.name]
    for above in folder.parents:
        if not (above / "__init__.py").exists():
            break
        names.insert(0, above.name)
    return ".".join(names)


def imported_names(path: Path) -> Iterator[str]:
    """Every dotted name that a module imports; for ``from a import b``, ``a.b``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                above = package_of(path.parent).split(".")
                module = ".".join([*above[: len(above) - node.level + 1], *filter(None, [module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_of(folder: Path) -> dict[str, list[Path]]:
    """The modules of each room of `folder`, by the room's name."""
    rooms = {path.stem: [path] for path in folder.glob("*.py") if path.stem != "__init__"}
    return rooms | {path.parent.name: sorted(path.parent.rglob("*.py")) for path in folder.glob("*/__init__.py")}


def imports_between(folder: Path) -> dict[str, set[str]]:
    """For each room of `folder`, the other rooms that it imports from."""
    rooms, package = rooms_of(folder), package_of(folder)
    imports: dict[str, set[str]] = {}
    for room, paths in rooms.items():
        names = {name for path in paths for name in imported_names(path)}
        heads = {name.removeprefix(f"{package}.").split(".")[0] for name in names if name.startswith(f"{package}.")}
        imports[room] = (heads & rooms.keys()) - {room}
    return imports


def find_circle(imports: dict[str, set[str]]) -> list[str] | None:
    """An import cycle: each room imports the next one, and the last is the first again; None if there is no cycle."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]  # graphlib lists each before the one that needs it
    return None


def from_top(imports: dict[str, set[str]]) -> list[str]:
    """The rooms, each before those that it imports from."""
    alphabetical = {room: sorted(imports[room]) for room in sorted(imports)}
    return list(TopologicalSorter(alphabetical).static_order())[::-1]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), default="wn_dqn")
def main(folder: Path) -> None:
    """Print each room with the rooms that it imports from."""
    imports = imports_between(folder)
    circle = find_circle(imports)
    width = max(map(len, imports), default=0)
    for room in sorted(imports) if circle else from_top(imports):
        click.echo(f"{room:{width}}  {', '.join(sorted(imports[room])) or '-'}")
    if circle:
        click.echo(f"a circle: {' -> '.join(circle)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
