"""Metrics of the code, computed from its syntax. Nothing is imported.

    \b
    python scripts/measure_code.py                    # a table of metrics and goals
    python scripts/measure_code.py --where            # and the places that each one counts

A function is counted from its `def` to its last line, docstring included. A name of a parameterization is a string
that equals a key of the registry; words in prose do not count. Docstrings are asked of public modules, classes and
functions; one about arrays or tensors must give a shape, like [B, A], or a unit.
"""

from __future__ import annotations

import ast
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

PACKAGES = ("wn_dqn", "agents/wn_dqn_agents")
REGISTRY = "wn_dqn/config/registry.py"
# The files whose code a frame runs through, and those of the types that carry it, from the emulator to the first layer
# of the network that is updated. Kept by hand.
FRAME_WAY = (
    "wn_dqn/envs/atari.py",
    "wn_dqn/envs/vector_env.py",
    "wn_dqn/training/loop.py",
    "wn_dqn/replay/buffer.py",
    "wn_dqn/replay/transitions.py",
    "agents/wn_dqn_agents/dqn.py",
    "wn_dqn/nn/networks.py",
    "wn_dqn/nn/kernels.py",
)
SHAPE = re.compile(r"\[(\*?[A-Za-z]\w*[\w.]*|\d+)([ ,+*-]+(\w[\w.*+-]*|\*\w[\w.]*|\.\.\.))*\]")
UNIT = re.compile(r"\b(scalars?|seconds?|ms|bytes|steps|frames|updates|degrees|pixels?|axis|colou?r)\b")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A file and its syntax."""

    path: str
    """relative to the repository"""
    tree: ast.Module


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    name: str
    value: float
    goal: float
    at_least: bool = False
    """whether the goal is a least value, not a greatest one"""
    percent: bool = False
    where: list[str] = field(default_factory=list)
    """the places that it counts, or those that are missing"""

    @property
    def is_met(self) -> bool:
        """Whether the value is on the right side of the goal."""
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def text(self, number: float) -> str:
        """`number` as the table shows it."""
        return f"{number:.0%}" if self.percent else f"{number:,.0f}"


def read_modules(root: Path) -> list[Module]:
    """Every module of the packages."""
    paths = [path for package in PACKAGES for path in sorted((root / package).rglob("*.py"))]
    return [Module(path.relative_to(root).as_posix(), ast.parse(path.read_text(encoding="utf-8"))) for path in paths]


def functions_of(module: Module) -> Iterator[Function]:
    """Every function of a module, methods and inner functions, too."""
    return (node for node in ast.walk(module.tree) if isinstance(node, Function))


def place(module: Module, node: Function | ast.ClassDef | ast.expr, name: str = "") -> str:
    """``path:line name``, a reference for readers."""
    return f"{module.path}:{node.lineno} {name or getattr(node, 'name', '')}".rstrip()


def mentions(node: ast.AST | None, names: set[str]) -> bool:
    """Whether an annotation contains one of `names`, as a name, an attribute, or a word of a string."""
    if node is None:
        return False
    words = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    words |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    strings = [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    words |= {word for text in strings for word in re.findall(r"\w+", text)}
    return bool(words & names)


def parameters(function: Function) -> list[ast.arg]:
    """All parameters of a function."""
    given = function.args
    return [*given.posonlyargs, *given.args, *given.kwonlyargs, *filter(None, [given.vararg, given.kwarg])]


def measure_settings(modules: list[Module]) -> Metric:
    """Functions of which a parameter is the whole settings."""
    where = [
        place(module, function)
        for module in modules
        for function in functions_of(module)
        if any(mentions(parameter.annotation, {"Settings"}) for parameter in parameters(function))
    ]
    return Metric("signatures that take the whole settings", len(where), 6, where=where)


def registered_names(root: Path, table: str) -> set[str]:
    """The keys of a literal dict in the registry."""
    for node in ast.walk(ast.parse((root / REGISTRY).read_text(encoding="utf-8"))):
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == table and isinstance(node.value, ast.Dict):
            return {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    raise click.ClickException(f"{REGISTRY} has no literal dict {table}")


def measure_parameterizations(modules: list[Module], names: set[str]) -> Metric:
    """Files in which a string is the name of a parameterization."""
    lines: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names:
                lines[module.path].append(f"{node.lineno} {node.value}")
    where = [f"{path}: {', '.join(found)}" for path, found in lines.items()]
    return Metric("files that name a parameterization", len(where), 2, where=where)


def measure_lengths(modules: list[Module]) -> list[Metric]:
    """Median, 90th percentile and maximum of the lengths of functions."""
    lengths = [
        ((function.end_lineno or function.lineno) - function.lineno + 1, place(module, function))
        for module in modules
        for function in functions_of(module)
    ]
    lines = [length for length, _ in lengths]
    p90 = statistics.quantiles(lines, n=10, method="inclusive")[-1] if len(lines) > 1 else max(lines, default=0)
    longest = [f"{where}: {length}" for length, where in sorted(lengths, reverse=True)[:5]]
    return [
        Metric("lines of a function, median", statistics.median(lines or [0]), 7),
        Metric("lines of a function, 90th percentile", p90, 25),
        Metric("lines of a function, longest", max(lines, default=0), 60, where=longest),
    ]


def public_nodes(node: ast.Module | ast.ClassDef) -> Iterator[Function | ast.ClassDef]:
    """Public classes and functions in a module or a public class; what is inside a function is not public."""
    for child in node.body:
        if isinstance(child, Function | ast.ClassDef) and not child.name.startswith("_"):
            yield child
            if isinstance(child, ast.ClassDef):
                yield from public_nodes(child)


def measure_docstrings(modules: list[Module]) -> Metric:
    """The share of public modules, classes and functions that have a docstring."""
    total, missing = 0, []
    for module in modules:
        found = [(module.path, module.tree), *((place(module, node), node) for node in public_nodes(module.tree))]
        total += len(found)
        missing += [where for where, node in found if not ast.get_docstring(node)]
    return Metric("docstrings", 1 - len(missing) / max(total, 1), 0.95, at_least=True, percent=True, where=missing)


def array_names(modules: list[Module]) -> set[str]:
    """What arrays and tensors are called in annotations: their types, and aliases of them in the packages."""
    names = {"Tensor", "NDArray", "ndarray"}
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and mentions(node.value, names):
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def measure_shapes(modules: list[Module]) -> Metric:
    """Of the docstrings of public functions that take or return arrays, the share that gives a shape or a unit."""
    names, total, missing = array_names(modules), 0, []
    for module in modules:
        for node in public_nodes(module.tree):
            docstring = ast.get_docstring(node)
            if isinstance(node, ast.ClassDef) or not docstring:
                continue
            annotations = [node.returns, *(parameter.annotation for parameter in parameters(node))]
            if any(mentions(annotation, names) for annotation in annotations):
                total += 1
                if not (SHAPE.search(docstring) or UNIT.search(docstring)):
                    missing.append(place(module, node))
    share = 1 - len(missing) / max(total, 1)
    return Metric("shapes or units where arrays pass", share, 0.8, at_least=True, percent=True, where=missing)


def measure_names(modules: list[Module]) -> list[Metric]:
    """Modules of one name, and modules called like one of the standard library."""
    stems = {module.path: Path(module.path).stem for module in modules}
    named = {path: stem for path, stem in stems.items() if not stem.startswith("__")}
    counts = Counter(named.values())
    equal = [path for path, stem in sorted(named.items(), key=lambda item: item[1]) if counts[stem] > 1]
    library = [path for path, stem in named.items() if stem in sys.stdlib_module_names]
    return [
        Metric("modules that share their name", len(equal), 0, where=equal),
        Metric("modules named like the standard library's", len(library), 0, where=library),
    ]


def measure_top(root: Path) -> list[Metric]:
    """The numbers of folders and files at the top of the package."""
    folders = sorted(path.parent.name for path in (root / PACKAGES[0]).glob("*/__init__.py"))
    files = sorted(path.name for path in (root / PACKAGES[0]).glob("*.py"))
    return [
        Metric(f"folders at the top of {PACKAGES[0]}", len(folders), 14, where=folders),
        Metric(f"files at the top of {PACKAGES[0]}", len(files), 5, where=files),
    ]


def measure_way(root: Path) -> Metric:
    """The number of files on a frame's way. Raises an error if one of them is missing."""
    missing = [path for path in FRAME_WAY if not (root / path).is_file()]
    if missing:
        raise click.ClickException(f"FRAME_WAY names what is not there: {', '.join(missing)}")
    return Metric("files on a frame's way to the update", len(FRAME_WAY), 8, where=list(FRAME_WAY))


def measure(root: Path) -> list[Metric]:
    """All metrics of the repository at `root`."""
    modules = read_modules(root)
    return [
        measure_settings(modules),
        measure_parameterizations(modules, registered_names(root, "PARAMETERIZATIONS")),
        *measure_lengths(modules),
        measure_docstrings(modules),
        measure_shapes(modules),
        *measure_names(modules),
        *measure_top(root),
        measure_way(root),
    ]


@click.command(help=__doc__, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path), default=".")
@click.option("--where", is_flag=True, help="List the places that a metric counts; for shares, those that lack it.")
@click.option("--check", is_flag=True, help="Exit with status 1 if a goal is missed.")
def main(root: Path, where: bool, check: bool) -> None:
    """Print the table."""
    metrics = measure(root)
    table = Table("metric", "value", "goal", "")
    for metric in metrics:
        goal = f"{'>=' if metric.at_least else '<='} {metric.text(metric.goal)}"
        table.add_row(metric.name, metric.text(metric.value), goal, "" if metric.is_met else "missed")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    for metric in metrics if where else []:
        click.echo("\n".join([f"\n{metric.name}:", *(f"  {each}" for each in metric.where)]))
    if check and not all(metric.is_met for metric in metrics):
        sys.exit(1)


if __name__ == "__main__":
    main()
