"""Generate the parts of the documents that follow from the code.

    python tools/documents.py        writes all of them

`tests/test_generated_documents.py` checks that the documents are up to date.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import cxr_compare
from cxr_compare.data_prep.sources.registry import FORMATS
from cxr_compare.evaluation.metrics.metric import Direction, Metric, Need
from cxr_compare.evaluation.metrics.registry import METRICS, why_undefined
from cxr_compare.scripts.command_line import command_name
from cxr_compare.scripts.command_list import (
    COMMANDS,
    command_function,
    command_groups,
)
from cxr_compare.scripts.parameters import Parameter, description, parameters_of, texts_of
from cxr_compare.scripts.runner import type_text

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # where `tools` lies, if this file is run as a program

from tools.simulation import __main__ as simulation  # noqa: E402

COMMAND = "run: python tools/documents.py"


def generated() -> dict[str, str]:
    """Return the text of every generated document, by its path below the checkout."""
    parts: dict[str, dict[str, Callable[[], str]]] = {
        "docs/architecture.md": {"tree": tree},
        "docs/formats.md": {"formats": formats_table},
    }
    pages = {
        path: with_parts(_read(path), {name: part() for name, part in own.items()})
        for path, own in parts.items()
    }
    results = simulation.read()
    return pages | {
        "docs/metrics.md": metrics_page(),
        "docs/reference.md": reference_page(),
        "docs/api.md": api_page(),
        "cxr_compare/__init__.pyi": type_stub(),
        "docs/validity.md": simulation.with_table(_read("docs/validity.md"), results),
        "docs/validity.csv": simulation.every_row(results),
    }


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def with_parts(page: str, parts: dict[str, str]) -> str:
    """Replace each part of a page that is between ``<!-- NAME -->`` and ``<!-- end of NAME -->``.

    A page without one of the comments ends the program.
    """
    for name, text in parts.items():
        start = f"<!-- {name} -->\n"
        end = f"<!-- end of {name} -->"
        head, found, rest = page.partition(start)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"a page lacks the marks {start.strip()} and {end}")
        page = f"{head}{start}\n{text.strip()}\n\n{end}{tail}"
    return page


# ---------------------------------------------------------------------- the tree of folders


def tree() -> str:
    """Return a table of packages and their docstrings: the lowest layer first."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = ["| folder | what it holds |", "|---|---|"]
    for layer in _layers(config, "packages"):
        package = layer.removeprefix("cxr_compare.")
        lines.append(f"| **`{package}/`** | {_sentence(ROOT / package)} |")
        if config.has_section(_contract(contract := package.replace("_", "-"))):
            names = [name for name in _layers(config, contract) if (ROOT / package / name).is_dir()]
            lines += [f"| `{package}/{n}/` | {_sentence(ROOT / package / n)} |" for n in names]
    return "\n".join(lines)


def _contract(name: str) -> str:
    return f"importlinter:contract:{name}"


def _layers(config: configparser.ConfigParser, contract: str) -> list[str]:
    rows = config[_contract(contract)]["layers"].split("\n")
    return [name.strip() for row in reversed(rows) if row for name in re.split("[|:]", row)]


def _sentence(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""


# ---------------------------------------------------------------------- registries


def formats_table() -> str:
    """Return a table of the formats that ``cxr prepare`` reads."""
    lines = ["| `--format` | the folder holds |", "|---|---|"]
    for name, known in FORMATS.items():
        labels = (known.title, *("another source" for _ in known.sources[1:]))
        places = [f"[{n}](https://{at})" for n, at in zip(labels, known.sources, strict=False)]
        title = ", ".join(places) + ": " * bool(places)
        lines.append(f"| [`{name}`](#{name}) | {title}{known.folder} |")
    return "\n".join(lines)


_INTRODUCTION = """\
# Metrics

This page explains every metric of a report. The table below has one row for each metric, by its
name in `figures.csv`. The [glossary](glossary.md) explains other terms.

The columns of the table are:

- **meaning**: what the metric measures. If several metrics share a row, N stands for the number in
  the name of each (`1_8` means 1/8). Thresholds, score cuts and calibrations are always chosen on
  validation images.
- **better**: whether a higher or a lower value is better, or which value is best.
- **computed**: the images on which the metric is computed.
- **undefined**: the cases in which the metric has no value. The cell of the metric in a report
  is then empty, never 0, and a note says why. Every metric is undefined if there are no images.

A metric is also undefined if the compared system (a detector or classifier) lacks something that
the metric needs:

- **Threshold**: it is chosen on validation images by a policy (a rule such as the best F1).
- **Boxes**: a detector predicts boxes. A classifier has boxes only if validation images chose how
  boxes are cut out of its activation maps.
- **Score cut of boxes**: the score from which a box counts, which is chosen on validation images.
- **Point**: the centre of the box with the highest score, or the peak of the activation map. If
  several boxes of an image share the highest score, the uppermost of them is taken, and of equally
  high ones the leftmost. (Some other programs take the mean over these boxes.)
- **Probability**: a score that was calibrated on validation images.

A protocol (the plan of a comparison) names a primary figure: the metric by which one system is
called better than another. Not every metric can be the primary figure: higher values of it must be
better. Some metrics, such as sensitivity, can be raised at the cost of another metric, such as
specificity, by choosing another threshold. Such a metric can be the primary figure only together
with the other metric:

{halves}

Two scores are those of challenges on Kaggle. Their definitions are on the evaluation pages of the
[RSNA Pneumonia Detection Challenge](https://www.kaggle.com/c/rsna-pneumonia-detection-challenge/overview/evaluation)
of 2018 and of the
[VinBigData challenge](https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection/overview/evaluation)
of 2021. The latter is the mean over 14 findings and the class "No finding"; here it is the mean
over one finding, that of the target, and "No finding". So "No finding" is half of the score here,
and was a fifteenth of it there.

The command `python tools/documents.py` writes this page from `evaluation/metrics/registry.py`.

| name | title | meaning | better | computed | undefined |
|---|---|---|---|---|---|
"""
_BETTER: dict[Direction, str] = {
    "higher": "higher is better",
    "lower": "lower is better",
    "none": "neither higher nor lower is better",
}
_LACKS: dict[Need, str] = {
    "threshold": "the system has no threshold",
    "boxes": "the system has no boxes",
    "box_cut": "no score cut of boxes was chosen",
    "point": "the system has neither boxes nor activation maps",
    "probability": "the system has no probability",
}
_SAID_ABOVE = ("there is no image", Metric.undefined)


def metrics_page() -> str:
    """Return ``docs/metrics.md``, in which metrics that differ only in a number share a row."""
    alike: dict[tuple[str, ...], list[Metric]] = {}
    for metric in METRICS.values():
        alike.setdefault(_cells(metric, anonymous=True), []).append(metric)
    rows = [
        (
            ", ".join(f"`{metric.name}`" for metric in metrics),
            *(anonymous if metrics[1:] else _cells(metrics[0])),
        )
        for anonymous, metrics in alike.items()
    ]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    halves = "\n".join(
        f"- `{metric.name}` with {' or '.join(f'`{partner}`' for partner in able)}"
        for metric in METRICS.values()
        if not metric.why_not_primary
        if (able := [name for name in metric.partners if not METRICS[name].why_not_primary])
    )
    return _INTRODUCTION.format(halves=halves) + "\n".join(lines) + "\n"


def _cells(metric: Metric, *, anonymous: bool = False) -> tuple[str, ...]:
    """Return the cells of a metric without its name; if `anonymous`, with N for each number."""
    images = {
        None: "all images",
        "all": "all images",
        "positive": "positive images",
        "negative": "negative images",
        "called": "images called positive",
        "not_called": "images called negative",
    }[metric.share_of]
    if metric.boxed:
        images = f"{images.removeprefix('all ')} whose lesions all have boxes"
    reasons = [why_undefined(metric.name)] * (metric.undefined not in _SAID_ABOVE)
    reasons += [_LACKS[need] for need in metric.needs]
    cells = (
        metric.title,
        metric.meaning,
        _BETTER.get(metric.direction, f"{metric.ideal or 0:g} is best"),
        f"on {images}",
        "undefined if " + ", or ".join(reasons or ["there is no image"]),
    )
    numbers = re.search(r"(?<=_)[\d_]+$", metric.name) if anonymous else None
    if numbers is None:
        return cells
    number = rf"(?<![\d/.])(0\.)?{numbers[0].replace('_', '/')}(?![\d/.]*\d)"
    return tuple(re.sub(number, "N", cell) for cell in cells)


# ---------------------------------------------------------------------- commands


_REFERENCE = """\
# Reference

Every command `cxr NAME` is also a Python function `cxr_compare.NAME` (`configs` is `list_configs`,
`import` is `import_predictions`). Arguments without a dash are given by position. An argument with
`...` may be repeated; in Python it is a list. Terms are explained in the [glossary](glossary.md).

Wrong input ends a command with one line and exit status 2; a function raises
`cxr_compare.InputError`. Exit status 3 means an error in cxr itself, with a traceback. `--json`
prints `to_dict()` of the object that the function returns ([what Python offers](api.md)). A
function prints nothing unless `progress=True`.

`python tools/documents.py` writes this page.
"""
_HEADER = ["| argument | default | meaning |", "|---|---|---|"]


@cache
def documented_commands() -> dict[str, Callable[..., Any]]:
    """Return the function of each command, by its name in Python."""
    return {name: command_function(name) for name in COMMANDS}


def reference_page() -> str:
    """Return ``docs/reference.md``, which describes every command with its arguments."""
    functions = documented_commands()
    overview = []
    for title, names in command_groups().items():
        documented = [command_name(name) for name in names if name in functions]
        if documented:
            overview.append(f"- {title}: {', '.join(f'[{n}](#{n})' for n in documented)}")
    commands_of = Counter(
        _row(p) for function in functions.values() for p in parameters_of(function)
    )
    shared = {
        row for row, commands in commands_of.items() if commands > 1 and row.startswith("| `--")
    }
    lines = [
        _REFERENCE,
        *overview,
        "",
        *(_command(name, function, shared) for name, function in functions.items()),
    ]
    return "\n".join([*lines, "## Shared options", "", *_HEADER, *sorted(shared), ""])


_API = """\
# What Python offers

This page has every name that `import cxr_compare` exports, with its docstring. [From
Python](python.md) shows how they are used together, the [reference](reference.md) has the same as
commands, and the [glossary](glossary.md) explains terms. On GitHub this page is only a list of
names: build the site, or use `help()`, to read the docstrings.
`python tools/documents.py` writes the list.
"""


def api_page() -> str:
    """Return ``docs/api.md``: the exported names, whose docstrings the site shows."""
    names = [name for name in cxr_compare.__all__ if not name.startswith("_")]
    sections = {
        # Where they are defined: the stub has one line of each docstring.
        "Commands": [f"scripts.commands.{name}.{name}" for name in names if name in COMMANDS],
        "Runs and answers": [n for n in names if n not in COMMANDS and n != "metrics"],
        "Functions of arrays": [f"metrics.{name}" for name in cxr_compare.metrics.__all__],
    }
    lists = (
        f"\n## {title}\n\n" + "\n".join(f"::: cxr_compare.{name}\n" for name in listed)
        for title, listed in sections.items()
    )
    return _API + "".join(lists)


def type_stub() -> str:
    """Return what editors and type checkers read of `cxr_compare`: a signature of each function.

    The keyword ``progress`` and the loading of names on first use, which no type checker sees, are
    written out. A function that returns one thing or another has a signature for each, as far as
    its arguments tell them apart.
    """
    modules = {"Any": "typing", "Literal": "typing", "overload": "typing"}
    modules |= {"Sequence": "collections.abc", "Mapping": "collections.abc"}
    modules |= {"AnyPath": "cxr_compare.scripts.parameters"}
    exported = [
        f"from {home} import {name} as {name}"
        for name, home in {"metrics": "cxr_compare", **cxr_compare._HOMES}.items()
        if name not in COMMANDS
    ]
    functions = []
    for name in COMMANDS:
        function = command_function(name)
        modules |= _imported_names(inspect.unwrap(function).__module__)
        functions += _stub_functions(name, function)
    used = set(re.findall(r"\b[A-Z]\w+|overload", "\n".join(functions))) - set(exported)
    public = set(cxr_compare.__all__)
    imports = [
        f"from {modules[name]} import {name}"
        for name in sorted(used & modules.keys() - public, key=lambda name: (modules[name], name))
    ]
    lines = [
        '"""Made by tools/documents.py: what editors and type checkers read of the package."""',
        "",
        *imports,
        *exported,
        "",
        "__version__: str",
        "__all__: list[str]",
        "_HOMES: dict[str, str]",
        "",
        *functions,
    ]
    text = "\n".join(lines)
    for command in (["check", "--select", "I", "--fix", "--quiet"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--stdin-filename", "x.pyi", "-"]
        done = subprocess.run(ruff, input=text, capture_output=True, text=True, cwd=ROOT)
        if done.returncode:
            raise SystemExit(f"cxr_compare/__init__.pyi: {done.stderr or done.stdout}")
        text = done.stdout
    return text


# Return types by what an argument is, where a function returns one of several.
_OVERLOADS = {
    "compare": (
        ("target", 'Literal["all"] | list[str] | tuple[str, ...]', "ResultsByTarget"),
        ("target", "str | None = None", "Result"),
    ),
}


def _stub_functions(name: str, function: Callable[..., Any]) -> list[str]:
    """Return the lines of a stub of a command."""
    signature = inspect.signature(function)
    texts = signature.texts()  # type: ignore[attr-defined]
    returns = type_text(signature.return_annotation)
    sentence = (inspect.getdoc(function) or "").partition("\n")[0]
    if name not in _OVERLOADS:
        return _stub_function(name, texts, returns, sentence)
    lines = []
    for parameter, annotation, returned in _OVERLOADS[name]:
        own = [
            f"{parameter}: {annotation}" if text.startswith(f"{parameter}:") else text
            for text in texts
        ]
        lines += ["@overload", *_stub_function(name, own, returned, sentence)]
    # A text is one finding, but for "all".
    lines[1] += "  # type: ignore[overload-overlap]"
    return lines


def _stub_function(name: str, parameters: list[str], returns: str, sentence: str) -> list[str]:
    """Return the lines of a function in a stub."""
    indented = [f"    {parameter}," for parameter in parameters]
    return [f"def {name}(", *indented, f") -> {returns}:", f'    """{sentence}"""', "    ...", ""]


def _imported_names(module: str) -> dict[str, str]:
    """Return where each name is from that a module imports from this package, or defines."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    names = {node.name: module for node in tree.body if isinstance(node, ast.ClassDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("cxr_compare."):
            names |= {alias.name: str(node.module) for alias in node.names}
    return names


def _command(name_in_python: str, function: Callable[..., Any], shared: set[str]) -> str:
    name = command_name(name_in_python)
    body, examples = description(function)
    rows = {parameter: _row(parameter) for parameter in parameters_of(function)}
    also = [f"`{parameter.option}`" for parameter, row in rows.items() if row in shared]
    return "\n".join(
        [
            f"## {name}",
            "",
            _linked(body),
            "",
            *_HEADER,
            *(row for row in rows.values() if row not in shared),
            "",
            *([f"[Shared](#shared-options): {', '.join(also)}.", ""] if also else []),
            "```bash",
            *examples,
            "```",
            "",
        ]
    )


def _row(parameter: Parameter) -> str:
    name = parameter.name if parameter.positional else parameter.option
    name += " ..." * parameter.several
    words = parameter.help
    if any(choice not in words for choice in parameter.choices):
        words += f" One of {', '.join(parameter.choices)}."
    return f"| `{name}` | {_default(parameter)} | {_linked(_cell(words))} |"


def _linked(text: str) -> str:
    return re.sub(r"docs/([\w-]+\.md(#[\w-]+)?)", r"[\1](\1)", text)


def _default(parameter: Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "" if parameter.variadic else "required"
    return f"`{words}`" if (words := ",".join(texts_of(parameter.default))) else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def stale() -> Iterator[str]:
    """Return the documents that are out of date."""
    for path, text in generated().items():
        if not (ROOT / path).is_file() or _read(path) != text:
            yield path


if __name__ == "__main__":
    contents = generated()
    for document in stale():
        (ROOT / document).write_text(contents[document], encoding="utf-8")
        sys.stdout.write(f"{document}: written\n")
