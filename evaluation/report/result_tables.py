"""The tables of a report folder for papers and programs, with the costs of each system."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.tables import write_csv, write_table
from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import inside_sentence, listing
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.page import Row, Table, render, sentence
from cxr_compare.evaluation.report.tables import TableRow, image_count, summary_table
from cxr_compare.evaluation.report.unknown_patients import (
    record_of_images,
    say_images,
    table_of_images,
)


def write_tables(comparison: Comparison, out: Path, question: dict[str, Any] | None = None) -> None:
    """Write what programs read; ``metrics.json`` comes last and marks the folder complete.

    Beside it: ``metrics.csv``, ``tests.csv``, ``where.csv``, ``costs.csv``, ``decisions.parquet``,
    and ``report.zip`` with what a paper needs of the folder. `question`, how the report was asked
    for, is kept in ``metrics.json``.
    """
    make_folder(out)
    tables = {
        files.METRICS_TABLE: all_units(comparison),
        files.TESTS_TABLE: tests_table(comparison),
        files.WHERE_TABLE: failures_table(comparison),
        files.COSTS_TABLE: _cost_table(comparison),
    }
    for name, table in tables.items():
        write_csv(table, out / name)
    decisions = comparison.decisions
    if not comparison.patients_known:  # what stands there are the images' own ids
        decisions = decisions.drop(columns="patient_id", errors="ignore")
    write_table(decisions, out / files.DECISIONS, "decisions")
    _write_archive(out)
    asked = {} if question is None else {"question": question}
    write_json(out / files.METRICS, "metrics", metrics_json(comparison) | asked)


def metrics_json(comparison: Comparison) -> dict[str, Any]:
    """Return what ``metrics.json`` holds, but for how the report was asked for."""
    answer = comparison.answer
    record = {
        "target": comparison.finding,
        "answer": {
            "headline": answer.headline,
            "kind": answer.kind,
            "cautions": [caution.text for caution in answer.cautions],
            "readers": [note.text for note in comparison.notes if note.kind == "readers"],
            "findings": [sentence("finding", each, comparison) for each in answer.conclusions],
            "triage": comparison.triage,
            "guarantees": [result.words for result in comparison.guarantees],
            "scope": " ".join(answer.scope.values()),
        },
        "systems": comparison.names,
        "thresholds": {name: each.thresholds for name, each in comparison.systems.items()},
        "costs": {name: each.cost for name, each in comparison.systems.items()},
        "notes": [note.text for note in comparison.notes],
        "metrics": _records(all_units(comparison)),
        "tests": _records(tests_table(comparison)),
        "where": _records(failures_table(comparison)),
        "by_reader": comparison.by_reader,
        "goals": [
            vars(each) | {"ci_method": each.method, "standing": each.standing}
            for each in comparison.goals
        ],
        "guarantees": [
            {
                "system": result.system,
                "policy": result.policy,
                "threshold": result.threshold,
                "validation_patients": patients,
                **part._asdict(),
                "confidence": result.guarantee.confidence,
                **(outcome._asdict() if (outcome := result.outcomes.get(part.figure)) else {}),
            }
            for result in comparison.guarantees
            for part, patients in zip(result.guarantee.parts, result.patients, strict=True)
        ],
        "provenance": comparison.provenance,
    }
    return record if comparison.patients_known else record_of_images(record)


def all_units(comparison: Comparison) -> pd.DataFrame:
    """Return the tidy table by image and, where asked for, by study or patient."""
    of_units = None if comparison.by_unit is None else comparison.by_unit.table()
    return _worded(comparison, pd.concat([comparison.metrics, of_units], ignore_index=True))


def tests_table(comparison: Comparison) -> pd.DataFrame:
    """Return the paired tests of every pair of systems."""
    return _worded(comparison, comparison.told_tests.reset_index(drop=True))


def failures_table(comparison: Comparison) -> pd.DataFrame:
    """Return the figures of groups of images, lesions and patients."""
    return _worded(comparison, comparison.failures.infer_objects())


def _worded(comparison: Comparison, table: pd.DataFrame) -> pd.DataFrame:
    return table if comparison.patients_known else table_of_images(table)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows for JSON; what is undefined is null."""
    rows = table.astype(object).where(table.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "≥": r"$\geq$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
}


def write_table_files(
    comparison: Comparison, out: Path, rows: Sequence[TableRow], told: dict[str, Any]
) -> None:
    """Write ``table.tex`` and ``table.md``: the rows wanted, else the usual ones of a paper.

    Of what `methods` told, the checklists and the references, too.
    """
    lines = []
    for each in told["checklists"]:
        items = each.columns, ["---"] * len(each.columns), *each.rows
        lines += [each.title, "", *(_markdown_row(list(map(str, item))) for item in items), ""]
    table = summary_table(comparison, rows, paper=True)
    texts = {
        files.CHECKLISTS: "\n".join(lines),
        files.REFERENCES: render("references.bib.jinja", **told),
        files.LATEX_TABLE: _latex_table(comparison, table),
        files.MARKDOWN_TABLE: _markdown_table(comparison, table),
    }
    for name, text in texts.items():
        known = comparison.patients_known or name == files.REFERENCES
        write_text(out / name, text if known else say_images(text))


def _latex_table(comparison: Comparison, table: Table) -> str:
    """Return a table with caption and label that needs the package booktabs and nothing else."""
    heads = ["", *table.columns[1:]]
    finding = comparison.display_name
    counts = image_count(comparison.estimates)
    caption = f"{listing(comparison.names)} on {inside_sentence(finding)}"
    caption += f": {counts}. " if counts else ". "
    caption += "Figures with 95 % intervals."
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(caption)}}}",
        rf"\label{{tab:{re.sub('[^a-z0-9]+', '-', comparison.finding.lower())}}}",
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        " & ".join(map(_latex_text, heads)) + r" \\",
    ]
    for title, cells in _groups(table):
        heading = rf"\emph{{{_latex_text(title)}}}"
        lines += [r"\midrule", rf"\multicolumn{{{len(heads)}}}{{l}}{{{heading}}} \\"]
        lines += [" & ".join(map(_latex_text, row)) + r" \\" for row in cells]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_text(text: str) -> str:
    r"""Return a text as LaTeX prints it, whatever is in it.

    Example:
        >>> print(_latex_text("50 % of A_1 & B, score ≥ 0.5"))
        50 \% of A\_1 \& B, score $\geq$ 0.5
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _markdown_table(comparison: Comparison, table: Table) -> str:
    """Return the same table as Markdown, with what it rests on above."""
    heads = ["", *table.columns[1:]]
    answer = comparison.answer
    lines = [
        f"{comparison.display_name}: {answer.headline}",
        "",
        *(line for caution in answer.cautions for line in (f"- {caution.text}", "")),
        f"Images with {inside_sentence(comparison.display_name)} against images without; "
        "each figure with its 95 % interval.",
    ]
    for title, cells in _groups(table):
        lines += ["", f"**{_markdown_text(title)}**", "", _markdown_row(heads)]
        lines += [_markdown_row(["---"] + ["---:"] * (len(heads) - 1))]
        lines += [_markdown_row(row) for row in cells]
    return "\n".join([*lines, ""])


def summary_frame(comparison: Comparison, rows: Sequence[TableRow] = ()) -> pd.DataFrame:
    """A paper's table as a frame of texts: figures with their intervals, systems in columns."""
    table = summary_table(comparison, rows, paper=True)
    index = [(group.title, row[0]) for group in table.groups for row in group.rows]
    texts = [list(map(str, row[1:])) for row in table.rows]
    return pd.DataFrame(
        texts, index=pd.MultiIndex.from_tuples(index), columns=list(table.columns[1:])
    )


def _groups(table: Table) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of every section."""
    groups = []
    for group in table.groups:
        limits = [
            f"{name} {limit}" for name, limit in zip(table.systems, group.thresholds, strict=False)
        ]
        title = group.heading + (f" ({'; '.join(limits)})" if limits else "")
        groups.append((title, [list(map(str, row)) for row in group.rows]))
    return groups


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_markdown_text, cells)) + " |"


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that equal files are equal archives


def _write_archive(out: Path) -> None:
    """Write ``report.zip``: tables, figures and pages, and a README that names each."""
    inside = [out / name for name in files.IN_ARCHIVE if (out / name).is_file()]
    captions = [out / files.FIGURES / f"{name}.txt" for name in files.FIGURE_NAMES]
    readme = "\n".join(
        [
            sentence("readme_start"),
            *(sentence("readme", path.name) for path in inside),
            *(
                f"Figure {n} ({files.FIGURES}/{path.stem}.*): {path.read_text(encoding='utf-8').strip()}"
                for n, path in enumerate(filter(Path.is_file, captions), 1)
            ),
        ]
    )
    # What the pages link to.
    linked = f"{files.FIGURES}/*", files.CASES_PAGES, files.IMAGES_TABLE, f"{files.THUMBNAILS}/*"
    further = [path for pattern in linked for path in sorted(out.glob(pattern))]
    contents = {str(path.relative_to(out)): path.read_bytes() for path in (*inside, *further)}
    with atomic_path(out / files.ARCHIVE) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in {"README.txt": f"{readme}\n".encode(), **contents}.items():
            entry = zipfile.ZipInfo(f"report/{name}", _LONG_AGO)
            archive.writestr(entry, content, zipfile.ZIP_DEFLATED)


UNKNOWN = "unknown"
COST_KEYS = (
    "made_of",
    "parameters",
    "trainable_parameters",
    "flops",
    "size_bytes",
    "train_seconds",
    "train_device",
    "train_peak_memory_bytes",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "latency_device",
    "peak_memory_bytes",
    "batch_size",
    "precision",
    "image_size",
)
"""What `cxr predict` records of a system; what it does not know is null."""

_AT_THRESHOLD = ("accuracy", "recall", "specificity", "precision", "f1")
_QUANTITIES = (
    ("Parameters", "parameters", 1e6, "million"),
    ("Trainable parameters", "trainable_parameters", 1e6, "million"),
    ("FLOPs per image", "flops", 1e9, "billion"),
    ("Size of the weights", "size_bytes", 1e6, "MB"),
    ("Training time", "train_seconds", 60.0, "min"),
    ("Peak training memory", "train_peak_memory_bytes", 1e6, "MB"),
    ("Time per image", "latency_ms", 1.0, "ms"),
    ("Peak memory per image", "peak_memory_bytes", 1e6, "MB"),
)


def cost_rows(comparison: Comparison) -> list[Row]:
    """Return size and time, one cell per system; "unknown" where not given.

    Where a system is made of others, their cost is summed.
    """
    costs = [system.cost for system in comparison.systems.values()]
    joined = any(cost.get("made_of") for cost in costs)
    first = costs[0] if joined and costs else {}
    rows = [
        (title, [_scaled(cost.get(key), unit, word, first.get(key)) for cost in costs])
        for title, key, unit, word in _QUANTITIES
    ]
    rows.append(("Trained on", [str(cost.get("train_device") or UNKNOWN) for cost in costs]))
    rows.append(("Timed on", [_timed_on(cost) for cost in costs]))
    if joined:
        rows.insert(0, ("Made of", [str(cost.get("made_of") or "one model") for cost in costs]))
    return [(title, *texts) for title, texts in rows]


def _cost_table(comparison: Comparison) -> pd.DataFrame:
    """Return the same for programs."""
    policy = comparison.main_policy
    rows = []
    for name, result in comparison.systems.items():
        row: dict[str, Any] = {"system": name, "policy": policy}
        for metric, at in (("auroc", ""), *((metric, policy) for metric in _AT_THRESHOLD)):
            figure = comparison.estimates.of(name, metric, at)
            row[metric] = figure.estimate
            row |= {f"{metric}_low": figure.low, f"{metric}_high": figure.high}
        cost = result.cost
        rows.append(row | {key: cost.get(key) for key in COST_KEYS})
    return pd.DataFrame(rows)


def _scaled(value: Any, unit: float, word: str, first: Any = None) -> str:
    """A quantity in words, and how many times that of the first system it is."""
    if value is None or value != value:
        return UNKNOWN
    scaled = float(value) / unit
    text = f"{scaled:,.1f} {word}" if scaled >= 1 or not scaled else f"{scaled:.2g} {word}"
    return f"{text} ({value / first:.1f} times)" if first and value != first else text


def _timed_on(cost: dict[str, Any]) -> str:
    device = cost.get("latency_device")
    if not device:
        return UNKNOWN
    batch = cost.get("batch_size")
    return f"{device}, batch {batch}" if batch else str(device)
