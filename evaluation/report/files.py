"""What a report folder is made of: each name once, for those who write, read and refuse."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import LOCK, atomic_path
from evaluation.metrics.registry import inside_sentence
from evaluation.report.tables import Cell, MetricTable, metric_table

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


PAGE = "report.html"
METRICS = "metrics.json"  # written last: marks the folder complete
METRICS_TABLE, TESTS_TABLE = "metrics.csv", "tests.csv"
WHERE_TABLE, COSTS_TABLE = "where.csv", "costs.csv"
DECISIONS = "decisions.parquet"
LATEX_TABLE, MARKDOWN_TABLE = "table.tex", "table.md"
FIGURES, OVERLAYS = "figures", "overlays"
SYSTEMS = "systems"  # what runs predicted for this report
CASES_PAGE, CASES_PAGES = "cases-{:03d}.html", "cases-[0-9]*.html"  # to make, to find

OF_ONE_TARGET = frozenset({
    PAGE, METRICS, METRICS_TABLE, TESTS_TABLE, WHERE_TABLE, COSTS_TABLE, DECISIONS,
    LATEX_TABLE, MARKDOWN_TABLE, FIGURES, OVERLAYS, SYSTEMS,
})  # fmt: skip
OF_ALL_TARGETS = frozenset({PAGE, METRICS_TABLE, SYSTEMS})  # beside a folder a target


def require_only(out: Path, names: Collection[str], what: str, pattern: str | None = None) -> None:
    """Refuse a folder that holds anything else, so that no report is mixed with other work.

    Args:
        out: Report folder; it need not exist.
        names: What it may hold.
        what: What it is, for the message.
        pattern: Of further files that it may hold.

    Raises:
        InputError: It holds something else.

    Example:
        >>> require_only(Path("nowhere"), OF_ONE_TARGET, "report")
    """
    held = sorted(out.iterdir()) if out.is_dir() else []
    for path in held:
        ours = path.name in {*names, LOCK} or (pattern is not None and path.match(pattern))
        if not ours:
            raise InputError(
                f"{out}: holds '{path.name}', which no {what} has; choose another --out"
            )


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "≥": r"$\geq$", "−": "$-$", "–": "--", "×": r"$\times$", "±": r"$\pm$",
}  # fmt: skip


def write_table_files(comparison: Comparison, out: Path) -> list[Path]:
    """Write ``table.tex`` and ``table.md``: every first and localisation figure with its interval.

    Args:
        comparison: What ``cxr compare`` found.
        out: An existing folder.

    Returns:
        The files written.
    """
    texts = {LATEX_TABLE: latex_table(comparison), MARKDOWN_TABLE: markdown_table(comparison)}
    for name, text in texts.items():
        with atomic_path(out / name) as path:
            path.write_text(text, encoding="utf-8")
    return [out / name for name in texts]


def latex_table(comparison: Comparison) -> str:
    """Return a LaTeX table that needs the package booktabs and nothing else."""
    first, place = metric_table(comparison), metric_table(comparison, "place")
    heads = ["", *first.systems, *first.contrasts]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"\toprule",
        " & ".join(map(latex_text, heads)) + r" \\",
    ]
    for title, rows in _groups(first, place):
        lines += [
            r"\midrule",
            rf"\multicolumn{{{len(heads)}}}{{l}}{{\emph{{{latex_text(title)}}}}} \\",
        ]
        lines += [" & ".join(map(latex_text, row)) + r" \\" for row in rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def latex_text(text: str) -> str:
    r"""Return a text as LaTeX prints it, whatever is in it.

    Example:
        >>> print(latex_text("50 % of A_1 & B, score ≥ 0.5"))
        50 \% of A\_1 \& B, score $\geq$ 0.5
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def markdown_table(comparison: Comparison) -> str:
    """Return the same tables as Markdown, with what they rest on above."""
    first, place = metric_table(comparison), metric_table(comparison, "place")
    heads = ["", *first.systems, *first.contrasts]
    lines = [
        f"{comparison.target.display_name}: {comparison.verdict}",
        "",
        f"Images with {inside_sentence(comparison.target.display_name)} against images without; "
        "each figure with its 95 % interval.",
    ]
    for title, rows in _groups(first, place):
        lines += ["", f"**{_markdown_text(title)}**", "", _markdown_row(heads)]
        lines += [_markdown_row(["---"] + ["---:"] * (len(heads) - 1))]
        lines += [_markdown_row(row) for row in rows]
    return "\n".join([*lines, ""])


def _groups(*tables: MetricTable) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of every section."""
    groups = []
    for table in tables:
        for section in table.sections:
            limits = [
                f"{name} {limit}"
                for name, limit in zip(table.systems, section.thresholds, strict=False)
            ]
            title = ", ".join(part for part in (section.title, section.count) if part)
            title += f" ({'; '.join(limits)})" if limits else ""
            rows = [[row.title, *map(_words, row.cells)] for row in section.rows]
            groups.append((title, rows))
    return groups


def _words(cell: Cell) -> str:
    return f"{cell.text} ({cell.ends})" if cell.ends else cell.text


def _markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_markdown_text, cells)) + " |"


def _markdown_text(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
