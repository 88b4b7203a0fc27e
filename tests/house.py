"""What the layout of the project measures: modules, names, imports, and the way of a score.

    python tests/house.py [ROOT]        the figures

`tests/test_architecture.py` holds the figures to their limits.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ROOMS = (
    "classification", "configs", "data_prep", "detection", "evaluation", "networks", "scripts",
    "serving", "training",
)  # fmt: skip
_SHORTEST = 3  # lines from which a file counts as a module: less is a package's docstring


class Walk(NamedTuple):
    """A walk down the call graph: files entered, different files, and returns to one left."""

    entered: int
    files: int
    returns: int


@dataclass
class House:
    """The product's modules and what they import of each other."""

    root: Path
    paths: dict[str, Path] = field(default_factory=dict)
    trees: dict[str, ast.Module] = field(default_factory=dict)
    users: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    imports: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    @classmethod
    def read(cls, root: Path) -> House:
        """Parse every module of the installed rooms."""
        house = cls(root)
        for path in sorted(p for room in ROOMS for p in (root / room).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            if len(path.read_text().splitlines()) >= _SHORTEST and path.stem != "__init__":
                house.paths[name] = path
                house.trees[name] = ast.parse(path.read_text())
        for name, tree in house.trees.items():
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module:
                    house._note(name, node)
        return house

    def _note(self, name: str, node: ast.ImportFrom) -> None:
        for alias in node.names:
            module = f"{node.module}.{alias.name}"
            if node.module in self.trees:
                self.users[node.module, alias.name].add(name)
                self.imports[name].add(node.module)
            elif module in self.trees:
                self.users[module, "*"].add(name)
                self.imports[name].add(module)

    def lines(self, name: str) -> int:
        """Lines of a module."""
        return len(self.paths[name].read_text().splitlines())

    def public_names(self) -> list[tuple[str, str]]:
        """Public functions and classes at the top of modules."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        return [
            (module, node.name)
            for module, tree in self.trees.items()
            for node in tree.body
            if isinstance(node, kinds) and not node.name.startswith("_")
        ]

    def wide_names(self) -> list[tuple[str, str]]:
        """Public names that another subfolder or room uses."""
        return [
            (module, name)
            for module, name in self.public_names()
            if any(_folder(user) != _folder(module) for user in self._users(module, name))
        ]

    def unused_names(self) -> list[tuple[str, str]]:
        """Public names that no other module of the product uses."""
        return [pair for pair in self.public_names() if not self._users(*pair)]

    def _users(self, module: str, name: str) -> set[str]:
        return (self.users[module, name] | self.users[module, "*"]) - {module}

    def importers(self) -> dict[str, int]:
        """How many modules import each."""
        counts = dict.fromkeys(self.trees, 0)
        for targets in self.imports.values():
            for target in targets:
                counts[target] += 1
        return counts

    def import_share(self) -> float:
        """Share of all lines that are import statements."""
        kinds = (ast.Import, ast.ImportFrom)
        of_imports = sum(
            node.end_lineno - node.lineno + 1
            for tree in self.trees.values()
            for node in ast.walk(tree)
            if isinstance(node, kinds) and node.end_lineno
        )
        return of_imports / sum(map(self.lines, self.trees))

    def walk(self, module: str, function: str) -> Walk:
        """Follow all calls from a function, depth first in the order of the text, each once."""
        defined = {name: _definitions(tree) for name, tree in self.trees.items()}
        seen_in: dict[str, dict[str, tuple[str, str]]] = {}
        for name, tree in self.trees.items():
            seen_in[name] = {key: (name, key) for key in defined[name]}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module in self.trees:
                    for alias in node.names:
                        seen_in[name][alias.asname or alias.name] = (node.module, alias.name)
        visited: set[tuple[str, str]] = set()
        trail: list[str] = []

        def follow(place: tuple[str, str]) -> None:
            visited.add(place)
            home, key = place
            if not trail or trail[-1] != home:
                trail.append(home)
            for node in _in_order(defined[home][key]):
                target = (
                    seen_in[home].get(node.func.id) if isinstance(node.func, ast.Name) else None
                )
                if target and target not in visited and target[1] in defined[target[0]]:
                    follow(target)
                    if trail[-1] != home:
                        trail.append(home)

        follow((module, function))
        files = len(set(trail))
        return Walk(len(trail), files, len(trail) - files)


def _folder(module: str) -> str:
    return module.rpartition(".")[0]


def _definitions(tree: ast.Module) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def _in_order(node: ast.AST) -> list[ast.Call]:
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return sorted(calls, key=lambda n: (n.lineno, n.col_offset))


def report(house: House) -> dict[str, str]:
    """The figures by what they measure."""
    lengths = [house.lines(name) for name in house.trees]
    functions = [
        node.end_lineno - node.lineno + 1
        for tree in house.trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.end_lineno
    ]
    importers = house.importers()
    fan_out = {name: len(targets) for name, targets in house.imports.items()}
    widest = max(fan_out, key=fan_out.__getitem__)
    tenths = statistics.quantiles(functions, n=10)
    figures = {
        "modules": f"{len(lengths)}",
        "lines": f"{sum(lengths):,}",
        "lines of a file, median and largest": f"{statistics.median(lengths):g}, {max(lengths)}",
        "lines of a function, median and 90 %": f"{statistics.median(functions):g}, {tenths[8]:g}",
        "public functions and classes": f"{len(house.public_names()):,}",
        "of these used outside their subfolder": f"{len(house.wide_names()):,}",
        "of these used by no other module": f"{len(house.unused_names()):,}",
        "modules with at most one importer": f"{sum(n <= 1 for n in importers.values())}",
        "largest fan-out": f"{fan_out[widest]} ({widest})",
        "import lines": f"{100 * house.import_share():.1f} %",
    }
    for name, function in (("compare", "compare_systems"), ("report", "write_report")):
        for module in (f"evaluation.{name}", f"evaluation.{name}.{name}"):
            if module in house.trees:
                entered, files, returns = house.walk(module, function)
                figures[f"way of a score through {function}"] = (
                    f"{entered} visits to {files} files, {returns} of them returns"
                )
    return figures


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for what, figure in report(House.read(where)).items():
        sys.stdout.write(f"{what:45s} {figure}\n")
