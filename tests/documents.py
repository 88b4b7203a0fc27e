"""The parts of the documents that follow from the code.

    python tests/documents.py        writes all of them

`tests/test_documents.py` holds the documents to them.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

import cxr_compare
from configs.load import _Key, _keys
from configs.settings import config_class
from data_prep.formats.registry import FORMATS
from evaluation.decisions.promises import _patients_needed
from evaluation.metrics.metric import NEEDS, Direction, Metric, Share
from evaluation.metrics.registry import METRICS, in_reading_order
from networks.registry import DETECTORS, NETWORKS
from scripts.cli import VERBS, verb_function
from scripts.runner import Parameter, _section, command_name, description, parameters_of

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "run: python tests/documents.py"
SCHEMA = "docs/metrics.schema.json"


def generated() -> dict[str, str]:
    """Every generated document as it should be, by its path below the checkout."""
    parts: dict[str, dict[str, Callable[[], str]]] = {
        "docs/architecture.md": {"tree": tree},
        "docs/formats.md": {"formats": formats_table},
        "docs/promises.md": {"patients needed": needed_table},
        "docs/weights.md": {
            "networks": networks_table, "classifier keys": lambda: key_block("classifier")
        },
        "docs/detector.md": {
            "detector keys": lambda: key_block("detector", "data", "model"),
            "keys of other detectors": other_keys,
        },
    }  # fmt: skip
    pages = {
        path: with_parts(_read(path), {name: part() for name, part in own.items()})
        for path, own in parts.items()
    }
    schema = json.dumps(metrics_schema(json.loads(_read(SCHEMA))), indent=2, ensure_ascii=False)
    pages |= {"docs/metrics.md": metrics_page(), SCHEMA: schema + "\n"}
    return pages | {"docs/reference.md": reference_page(), "docs/api.md": api_page()}


def _read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def with_parts(page: str, parts: dict[str, str]) -> str:
    """The page with each part between ``<!-- NAME -->`` and ``<!-- end of NAME -->`` replaced."""
    for name, text in parts.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, found, rest = page.partition(start)
        _, closed, tail = rest.partition(end)
        if not (found and closed):
            raise SystemExit(f"a page lacks the marks {start.strip()} and {end}")
        page = f"{head}{start}\n{text.strip()}\n\n{end}{tail}"
    return page


# ---------------------------------------------------------------------- the tree of folders


def tree() -> str:
    """Every room and subfolder with its docstring, from what others import to what imports all."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = ["| folder | what it holds |", "|---|---|"]
    for room in _layers(config, "rooms"):
        lines.append(f"| **`{room}/`** | {_sentence(ROOT / room)} |")
        if config.has_section(_contract(contract := room.replace("_", "-"))):
            names = [name for name in _layers(config, contract) if (ROOT / room / name).is_dir()]
            lines += [f"| `{room}/{name}/` | {_sentence(ROOT / room / name)} |" for name in names]
    return "\n".join(lines)


def _contract(name: str) -> str:
    return f"importlinter:contract:{name}"


def _layers(config: configparser.ConfigParser, contract: str) -> list[str]:
    rows = config[_contract(contract)]["layers"].split("\n")
    return [name.strip() for row in reversed(rows) if row for name in re.split("[|:]", row)]


def _sentence(folder: Path) -> str:
    return ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""


# ---------------------------------------------------------------------- registries


def needed_table() -> str:
    """How many patients with one image each show a promise, by the share that is found."""
    shares = (100, 99, 98, 96, 94)  # %
    lines = [
        f"| promise | {' | '.join(f'{share} %' for share in shares)} |",
        f"|---|{'---:|' * len(shares)}",
    ]
    for floor, sure in ((f, c) for f in (0.80, 0.90, 0.95) for c in (0.90, 0.95)):
        cells = []
        for share in shares:
            good = np.ones(100)  # what is missed lies evenly between
            good[((np.arange(100 - share) + 0.5) * 100 / max(1, 100 - share)).astype(int)] = 0
            count = _patients_needed(good, np.ones(100, dtype=np.int64), floor, 1 - sure)
            cells.append("–" if np.isnan(count) else f"{count:,.0f}")
        lines.append(f"| `>={floor:.2f}@{sure:.2f}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def formats_table() -> str:
    """The formats that ``cxr prepare`` reads."""
    lines = ["| `--format` | the folder holds |", "|---|---|"]
    for name, known in FORMATS.items():
        labels = (known.title, *range(2, len(known.sources) + 1))
        places = [f"[{n}](https://{at})" for n, at in zip(labels, known.sources, strict=False)]
        title = ", ".join(places) + ": " * bool(places)
        lines.append(f"| [`{name}`](#{name}) | {title}{known.folder} |")
    return "\n".join(lines)


def key_block(kind: Literal["detector", "classifier"], *sections: str) -> str:
    """The keys of a configuration as TOML, with defaults, meaning and values."""
    lines: list[str] = []
    for key in _keys(config_class(kind, "retinanet")):
        if not sections or key.section in sections:
            if f"[{key.section}]" not in lines:
                lines += ["", f"[{key.section}]"] if lines else [f"[{key.section}]"]
            lines += _key_lines(key)
    return "\n".join(["```toml", *lines, "```"])


def _key_lines(key: _Key) -> list[str]:
    """A key as TOML, its comment beside it or, where that is long, above it."""
    default = key.default
    if default is not None and default[0].isalpha() and default not in ("true", "false", "null"):
        default = f'"{default}"'
    line = f"# {key.name} =" if default in (None, "null") else f"{key.name} = {default}"
    values = f" ({key.values})" * (key.values not in ("", "text", "true, false"))
    comment = "required: " * (default is None) + key.description + values
    if len(line) + len(comment) < 96:
        return [f"{line}  # {comment}"]
    return [*textwrap.wrap(comment, 96, initial_indent="# ", subsequent_indent="# "), line]


def other_keys() -> str:
    """What other detectors than RetinaNet are asked beside what all are, by architecture."""
    common = ("backbone", "weights", "trainable", "architecture", "norm")
    blocks: dict[str, list[str]] = {}
    for name in DETECTORS[1:]:
        keys = [key for key in _keys(config_class("detector", name)) if key.section == "model"]
        rows = [line for key in keys if key.name not in common for line in _key_lines(key)]
        if rows:
            blocks.setdefault("\n".join(rows), []).append(name)
    parts = [f"# {', '.join(names)}\n{rows}" for rows, names in blocks.items()]
    return "\n".join(["```toml", "\n\n".join(parts), "```"])


def networks_table() -> str:
    """The registry of networks, by what may stand on them."""
    groups = {
        "detector and classifier": [n for n in NETWORKS.values() if n.detector and n.classifier],
        "classifier": [n for n in NETWORKS.values() if not n.detector],
        "detector": [n for n in NETWORKS.values() if not n.classifier],
        "maps of 32 px a cell only": [n for n in NETWORKS.values() if n.strides == (32,)],
        "maps of 16 px a cell only": [n for n in NETWORKS.values() if n.strides == (16,)],
        "no ImageNet weights": [n for n in NETWORKS.values() if n.weights is None],
    }
    rows = [f"| {what} | {', '.join(f'`{n.name}`' for n in of)} |" for what, of in groups.items()]
    return "\n".join(["| for | networks |", "|---|---|", *rows])


_INTRODUCTION = """\
# Metrics

Every metric of a report, by its short name in `metrics.csv` and `metrics.json`. An undefined
figure is empty and its note says why; it is never 0. A threshold, a score cut and a calibration
are chosen on validation images. Only a metric where higher is better can be the primary one of a
protocol. One half of an operating point needs the other: {halves}.

Reasons in the last column:

{needs}

`python tests/documents.py` writes this page and `metrics.schema.json` from
`evaluation/metrics/registry.py`.

| name | title | meaning | better | computed on | undefined when |
|---|---|---|---|---|---|
"""
_BETTER: dict[Direction, str] = {"higher": "higher", "lower": "lower", "none": "–"}
_IMAGES: dict[Share | None, str] = {
    None: "all images",
    "all": "all images",
    "positive": "positive images",
    "negative": "negative images",
    "called": "images called positive",
    "not_called": "images called negative",
}


def metrics_page() -> str:
    """``docs/metrics.md``: a row a metric."""
    rows = [
        (
            f"`{metric.name}`",
            metric.title,
            metric.meaning,
            _BETTER.get(metric.direction, f"ideal: {metric.ideal}"),
            _population(metric),
            "; ".join(filter(None, [metric.undefined, *(f"no `{n}`" for n in metric.needs)])),
        )
        for metric in in_reading_order()
    ]
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows]
    halves = "; ".join(
        f"`{metric.name}` with {' or '.join(f'`{partner}`' for partner in able)}"
        for metric in in_reading_order()
        if not metric.why_not_primary
        if (able := [name for name in metric.partners if not METRICS[name].why_not_primary])
    )
    needs = "\n".join(f"- no `{need}`: {why}" for need, why in NEEDS.items())
    return _INTRODUCTION.format(halves=halves, needs=needs) + "\n".join(lines) + "\n"


def _population(metric: Metric) -> str:
    images = _IMAGES[metric.share_of]
    return f"{images.removeprefix('all ')} whose lesions are all boxed" if metric.boxed else images


def metrics_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of ``metrics.json`` with the names of all metrics in it."""
    written: dict[str, Any] = json.loads(json.dumps(schema))
    for table in ("metrics", "tests"):
        written["properties"][table]["items"]["properties"]["metric"] = {
            "type": "string",
            "description": "Short name; docs/metrics.md says what each is.",
            "enum": list(METRICS),
        }
    return written


# ---------------------------------------------------------------------- verbs


_REFERENCE = """\
# Reference

Every verb, as a command and as a function: `cxr NAME` and `cxr_compare.NAME` are one definition
(`scripts/NAME.py`). Arguments without a dash are given by position; on the command line a list is
an option given several times. From Python, paths are texts, `Path`s or what lies in a folder, and
nothing is printed unless `progress=True`. Bad input raises `cxr_compare.InputError` with the line
that the command prints before it ends with exit code 2; `--json` prints `to_dict()` of what the
function returns. `python tests/documents.py` writes this page from the functions' docstrings.
"""


def reference_page() -> str:
    """``docs/reference.md``: every verb with its arguments."""
    functions = [verb_function(name) for name in VERBS]
    overview = ["| command | what it does |", "|---|---|"]
    for function in functions:
        name = command_name(function.__name__)
        first = description(function)[0].splitlines()[0].rstrip(".")
        overview.append(f"| [`cxr {name}`](#{name}) | {_cell(first)} |")
    return "\n".join([_REFERENCE, *overview, "", *(_verb(function) for function in functions)])


_API = """\
# What Python offers

Every name that `import cxr_compare` exports, from its docstring. [python.md](python.md) shows how
they are used together; [reference.md](reference.md) has the same verbs as commands.
`python tests/documents.py` writes the list.
"""


def api_page() -> str:
    """``docs/api.md``: the exported names, whose docstrings the site's build reads."""
    names = [name for name in cxr_compare.__all__ if not name.startswith("_")]
    sections = {
        "Verbs": [name for name in names if name in VERBS],
        "Runs and answers": [n for n in names if n not in VERBS and n != "metrics"],
        "Functions of arrays": [f"metrics.{name}" for name in cxr_compare.metrics.__all__],
    }
    lists = (
        f"\n## {title}\n\n" + "\n".join(f"::: cxr_compare.{name}\n" for name in listed)
        for title, listed in sections.items()
    )
    return _API + "".join(lists)


def _verb(function: Callable[..., Any]) -> str:
    body, examples = description(function)
    rows = [
        f"| `{_argument(parameter)}` | {_default(parameter)} | {_cell(parameter.words)} |"
        for parameter in parameters_of(function)
    ]
    returns = " ".join(_section(function, "Returns").split())
    return "\n".join([
        f"## {command_name(function.__name__)}",
        "",
        f"`cxr_compare.{function.__name__}`. {body}",
        "",
        "| argument | default | what it is |",
        "|---|---|---|",
        *rows,
        "",
        *([f"Returns: {returns}", ""] if returns else []),
        "```bash",
        *examples,
        "```",
        "",
    ])  # fmt: skip


def _argument(parameter: Parameter) -> str:
    return parameter.name if parameter.positional else parameter.option


def _default(parameter: Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return "" if parameter.variadic else "required"
    return "" if parameter.default in (None, (), "") else f"`{parameter.default}`"


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def stale() -> Iterator[str]:
    """Documents that are not as they should be."""
    for path, text in generated().items():
        if not (ROOT / path).is_file() or _read(path) != text:
            yield path


if __name__ == "__main__":
    for page in stale():
        (ROOT / page).write_text(generated()[page], encoding="utf-8")
        sys.stdout.write(f"{page}: written\n")
