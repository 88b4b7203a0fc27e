"""What the layout of the project measures: modules, names, imports, and the way of a score.

    python tests/house.py [ROOT]        the figures, of this checkout or another

`tests/test_architecture.py` holds the figures to their limits.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
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

    def _users(self, module: str, name: str) -> set[str]:
        return (self.users[module, name] | self.users[module, "*"]) - {module}

    def importers(self) -> dict[str, int]:
        """How many modules import each."""
        counts = dict.fromkeys(self.trees, 0)
        for targets in self.imports.values():
            for target in targets:
                counts[target] += 1
        return counts

    def wide_importers(self) -> list[str]:
        """Modules that import many others."""
        return sorted(n for n, targets in self.imports.items() if len(targets) > MANY_IMPORTS)

    def inner_imports(self) -> list[str]:
        """Import statements inside functions, as ``module:line``."""
        kinds = (ast.Import, ast.ImportFrom)
        return [
            f"{name}:{node.lineno}"
            for name, tree in self.trees.items()
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
            for node in _own_nodes(function)
            if isinstance(node, kinds)
        ]

    def long_functions(self) -> list[str]:
        """Functions that no screen holds, without their docstrings, as ``module:name``."""
        return [
            f"{name}:{node.name}"
            for name, tree in self.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and _code_lines(node) > LONG_FUNCTION
        ]

    def lines_of_tests(self) -> int:
        """Lines of all test files."""
        return sum(len(p.read_text().splitlines()) for p in (self.root / "tests").rglob("*.py"))

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


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions inside it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own_nodes(node)


def _code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring, which a verb's help is."""
    first = function.body[0]
    documented = ast.get_docstring(function) is not None
    docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def _folder(module: str) -> str:
    return module.rpartition(".")[0]


def _definitions(tree: ast.Module) -> dict[str, ast.AST]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def _in_order(node: ast.AST) -> list[ast.Call]:
    calls = [n for n in ast.walk(node) if isinstance(n, ast.Call)]
    return sorted(calls, key=lambda n: (n.lineno, n.col_offset))


# What carries verbs, folders, configuration and processes from one to the next: it neither answers
# the question nor reads, trains or draws. Listed by folder or file.
PLUMBING = (
    "configs", "data_prep/contracts", "data_prep/work", "data_prep/store/folder_kinds.py",
    "data_prep/assemble/dataset_writer.py", "evaluation/report/files.py", "scripts",
    "serving/backends.py", "serving/export_spec.py", "serving/pacs/journal.py",
    "serving/pacs/patience.py", "serving/web/app.py", "serving/web/decode_worker.py",
    "serving/web/gate.py", "serving/web/schemas.py", "serving/web/server.py",
    "serving/web/uploads.py", "training/batch_size.py", "training/loggers.py",
    "training/processes.py", "training/run_folder.py",
)  # fmt: skip
MANY_IMPORTS = 16  # modules of ours that one module imports, above which it knows too much
LONG_FUNCTION = 80  # lines


# The files that one thing passes, in order, each with the function that receives it: kept by hand,
# and checked: every function is there, and no file stands apart from the others.
WAYS = {
    "files that an image passes in prepare": (
        "scripts.prepare:prepare", "data_prep.assemble.prepare:prepare",
        "data_prep.formats.registry:read_source", "data_prep.formats.rsna:_read_rsna",
        "data_prep.store.decode:decode_all",
        "data_prep.work.pool:map_in_chunks", "data_prep.images.image:read_image",
        "data_prep.images.dicom:read_dicom",
        "data_prep.images.dicom_display:show_grey", "data_prep.images.image_facts:image_facts",
        "data_prep.store.preprocess:letterbox", "data_prep.store.pixel_store:PixelStoreWriter",
    ),
    "files that a box passes to an overlay": (
        "detection.detector:predict_boxes", "detection.retinanet:LesionRetinaNet",
        "detection.frames:decode_boxes",
        "detection.frames:_suppress", "detection.frames:boxes_frames",
        "data_prep.store.predictions:PredictionWriter",
        "evaluation.decisions.test_set:SystemOutput",
        "evaluation.decisions.decided_output:decide",
        "evaluation.overlays.shapes:prediction_shapes",
        "evaluation.overlays.draw:draw_overlay",
    ),
    "files that a setting passes to the optimiser": (
        "scripts.train:train", "configs.load:read_config", "configs.settings:TrainingSettings",
        "training.run:complete_run", "training.fit:fit", "training.loop:Loop",
    ),
}  # fmt: skip


def broken_ways(house: House) -> list[str]:
    """Steps of `WAYS` whose function is gone, or whose file no other file of the way knows."""
    broken = []
    for steps in WAYS.values():
        modules = [step.partition(":")[0] for step in steps]
        known = {target for module in modules for target in house.imports[module]}
        for module, name in (step.split(":") for step in steps):
            if name not in _definitions(house.trees.get(module, ast.Module([], []))):
                broken.append(f"{module}:{name} is gone")
            elif module not in known and not house.imports[module] & set(modules):
                broken.append(f"no file of the way imports {module}, nor it one of them")
    return broken


def rows(house: House) -> dict[str, float]:
    """The figures that `tests/test_architecture.py` holds to their limits."""
    lengths = {name: house.lines(name) for name in house.trees}
    total = sum(lengths.values())
    plumbing = sum(
        n for name, n in lengths.items()
        if f"{name.replace('.', '/')}.py".startswith(PLUMBING)
    )  # fmt: skip
    figures: dict[str, float] = {
        "lines": total,
        "modules": len(lengths),
        "longest module": max(lengths.values()),
        "plumbing, %": round(100 * plumbing / total, 1),
        "names used outside their subfolder": len(house.wide_names()),
        "public names": len(house.public_names()),
        f"modules importing more than {MANY_IMPORTS} others": len(house.wide_importers()),
        "imports inside functions": len(house.inner_imports()),
        f"functions over {LONG_FUNCTION} lines": len(house.long_functions()),
        "modules with at most one importer": sum(n <= 1 for n in house.importers().values()),
        "lines of tests": house.lines_of_tests(),
    }
    walks = [
        house.walk(f"evaluation.{name}.{name}", function)
        for name, function in (("compare", "compare_systems"), ("report", "write_report"))
    ]
    figures |= {way: len({step.partition(":")[0] for step in steps}) for way, steps in WAYS.items()}
    figures["files that a score passes"] = sum(walk.files for walk in walks)
    figures["visits of a score to files"] = sum(walk.entered for walk in walks)
    return figures


def added(root: Path, house: House, exceeded: list[str]) -> str:
    """What exceeds the limits and is not in the last commit, most first; a line a kind of thing."""
    listings: dict[str, Callable[[House], Iterable[str]]] = {
        "lines": lambda h: Counter({name: h.lines(name) for name in h.trees}).elements(),
        "modules": lambda h: sorted(h.trees),
        "names used outside their subfolder": lambda h: [".".join(pair) for pair in h.wide_names()],
        "public names": lambda h: [".".join(pair) for pair in h.public_names()],
        f"modules importing more than {MANY_IMPORTS} others": House.wide_importers,
        f"functions over {LONG_FUNCTION} lines": House.long_functions,
        "imports inside functions": lambda h: [line.split(":")[0] for line in h.inner_imports()],
    }
    wanted = {name: listing for name, listing in listings.items() if name in exceeded}
    if not wanted or not (root / ".git").exists():
        return ""
    with tempfile.TemporaryDirectory() as folder:
        archive = ["git", "-C", str(root), "archive", "HEAD", *ROOMS]
        packed = subprocess.run(archive, capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
        before = House.read(Path(folder))
        lines = []
        for name, listing in wanted.items():
            new = Counter(listing(house)) - Counter(listing(before))
            words = [what if n == 1 else f"{what} (+{n})" for what, n in new.most_common()]
            lines.append(f"{name}, new since the last commit: {', '.join(words) or 'none'}")
    return "\n".join(lines)


if __name__ == "__main__":
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[1]
    for what, figure in rows(House.read(where)).items():
        sys.stdout.write(f"{what:45s} {figure:>10,}\n")
