"""What `import cxr_compare` promises: names, text or Path, objects that print one line."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cxr_compare

ROOT = Path(__file__).resolve().parents[1]


def public_callables() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and the class and static methods of every public class."""
    for name in cxr_compare.__all__:
        member = getattr(cxr_compare, name)
        if inspect.isclass(member):
            for key, value in vars(member).items():
                if not key.startswith("_") and isinstance(value, classmethod | staticmethod):
                    yield f"{name}.{key}", getattr(member, key)
        elif callable(member):
            yield name, member


def test_every_path_argument_takes_text() -> None:
    paths = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name, function in public_callables()
        for parameter in inspect.signature(function).parameters.values()
        if "Path" in str(parameter.annotation)
    }
    assert {"DataSet.open(folder)", "Predictions.open(folder)", "RunFolder.open(folder)"} <= {
        *paths
    }
    refused = [
        name
        for name, kind in paths.items()
        if "str | Path" not in kind and "Path | str" not in kind
    ]
    assert not refused


@pytest.mark.parametrize(
    "opens", [cxr_compare.DataSet, cxr_compare.Predictions, cxr_compare.RunFolder]
)
def test_a_folder_given_as_text_is_refused_like_one_given_as_path(opens: Any) -> None:
    said = []
    for folder in ("no/such/folder", Path("no/such/folder")):
        with pytest.raises(cxr_compare.InputError) as refused:
            opens.open(folder)
        said.append(str(refused.value))
    assert said[0] == said[1]


def test_editors_and_type_checkers_see_the_names_that_are_there() -> None:
    tree = ast.parse(Path(cxr_compare.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    shown = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert shown == cxr_compare._HOMES


def test_an_audit_shows_its_problems_as_a_table_and_escapes_them() -> None:
    from data_prep.audit.audit import Audit, Problem

    problem = Problem("leak", "error", "patients <in> two roles", 2, ("a", "b"), "split again" * 9)
    audit = Audit((problem,), {"images": 1200})
    assert repr(audit) == "<Audit of 1,200 images: error 1, warning 0, info 0>"
    page = audit._repr_html_()
    assert "patients &lt;in&gt; two roles" in page
    assert "split again" * 9 in page  # a notebook would cut what pandas shows
    assert list(audit.table["examples"]) == ["a, b"]
