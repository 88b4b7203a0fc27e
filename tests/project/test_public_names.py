"""What `import cxr_compare` guarantees: names, descriptions, examples and documented calls."""

import ast
import builtins
import doctest
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import cxr_compare
from cxr_compare import metrics

ROOT = Path(__file__).resolve().parents[2]


def test_editors_and_type_checkers_see_the_names_that_are_there():
    tree = ast.parse(Path(cxr_compare.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {*imported, "__version__"} == {*cxr_compare.__all__}
    homes = {
        name: "cxr_compare" if name == "metrics" else getattr(cxr_compare, name).__module__
        for name in imported
    }
    assert imported == homes


def test_every_public_name_is_described_in_a_line():
    for name in set(dir(cxr_compare)) - {"__version__"}:
        sentence = (inspect.getdoc(getattr(cxr_compare, name)) or "").partition("\n")[0]
        assert sentence.endswith("."), name


def test_metrics_are_functions_of_arrays_with_examples():
    for name in metrics.__all__:
        member = getattr(metrics, name)
        if inspect.isfunction(member):
            example = (inspect.getdoc(member) or "").partition("Examples:")[2]
            assert f"metrics.{name}(" in example, name  # by the name that a user imports
    assert metrics.average_precision([0, 1], [0.1, 0.9]) == 1.0


def public_docstrings() -> Iterator[tuple[str, str]]:
    """Every public name of `cxr_compare` and `metrics`, and the methods of public classes."""
    members = [
        (name, getattr(cxr_compare, name))
        for name in {*cxr_compare.__all__} - {"metrics", "__version__"}
    ]
    members += [(f"metrics.{name}", getattr(metrics, name)) for name in metrics.__all__]
    for name, member in members:
        yield name, inspect.getdoc(member) or ""
        if inspect.isclass(member):
            for key, value in vars(member).items():
                if not key.startswith("_") and (callable(value) or isinstance(value, classmethod)):
                    yield f"{name}.{key}", inspect.getdoc(getattr(member, key)) or ""


def test_examples_import_every_name_that_they_use():
    lacking = {}
    for name, docstring in public_docstrings():
        examples = doctest.DocTestParser().get_examples(docstring)
        tree = ast.parse("".join(example.source for example in examples))
        nodes = list(ast.walk(tree))
        known = set(dir(builtins))
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
            elif isinstance(node, ast.arg):
                known.add(node.arg)
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        if used - known:
            lacking[name] = used - known
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        assert not {module for module in modules if str(module).startswith("cxr_compare.")}, name
    assert not lacking


def documented_calls() -> list[ast.Call]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        b for page in pages for b in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    ]
    blocks += [path.read_text() for path in (ROOT / "docs/examples").glob("*.py")]
    nodes = [node for block in blocks for node in ast.walk(ast.parse(block))]
    return [node for node in nodes if isinstance(node, ast.Call)]


def test_documented_calls_fit_the_functions():
    n_calls = 0
    for call in documented_calls():
        package, _, name = ast.unparse(call.func).rpartition(".")
        if package == "cxr_compare":
            keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            inspect.signature(getattr(cxr_compare, name)).bind(*call.args, **keywords)
            n_calls += 1
    assert n_calls >= 5
