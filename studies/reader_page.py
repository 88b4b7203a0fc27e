"""The answer of a reader study in sentences, and its page, table and JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.files import file_digest, write_text
from cxr_compare.data_prep.base.provenance import provenance
from cxr_compare.data_prep.base.records import write_json
from cxr_compare.data_prep.base.user_tables import write_csv
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.overlays.colours import system_mark
from cxr_compare.evaluation.report.charts import QUIET, page_element, svg_text
from cxr_compare.evaluation.report.page_templates import template_environment
from cxr_compare.evaluation.statistics.figure_text import (
    number,
    p_equation,
    p_value_text,
    range_text,
)
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves
from cxr_compare.studies.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    OverallTest,
)
from cxr_compare.studies.reader_analysis import ReaderStudy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 20
_STEPS = np.linspace(0.0, 1.0, 401)
_METHODS = (
    "Analysis of Obuchowski and Rockette (1995) with the degrees of freedom of Hillis (2007); the "
    "covariance over cases is by the jackknife over patients. One reader or system alone has the "
    "interval of a comparison.",
    f"With fewer than {FREEDOM_OF_A_CLAIM} degrees of freedom between readers, claims rest on "
    "cautious intervals "
    "(Zou and Donner 2008). Claims hold for all comparisons at once (Bonferroni).",
)
_COLUMNS = (
    "Figure",
    "Of",
    "Minus",
    "Reader",
    "Value",
    "95 % interval",
    "For all at once",
    "p",
    "Design",
)
_DASHES = ("-", "--", ":", "-.")


class Statement(NamedTuple):
    """A sentence with a result; `shown` is True if it states a difference that is shown."""

    text: str
    shown: bool = False


def statements(study: ReaderStudy) -> list[Statement]:
    """Return the sentences on the first metric: the overall test, then each comparison."""
    rows = _rows(study, "difference")
    title = METRICS[study.metrics[0]].inside
    if not rows:
        means = _rows(study, "mean")
        interval = {row.first: _ends(row.ci_low, row.ci_high) for row in means}
        return [
            Statement(
                f"Readers had a mean {title} of {number(row.estimate)} ({interval[row.first]}), "
                f"{_scope(study, row)}."
            )
            for row in means
        ]
    pairs = [
        Statement(f"{_compared(row, title, len(rows))}, {_scope(study, row)}.", shown(row))
        for row in rows
    ]
    return [*_overall(study, title, rows), *pairs]


def _scope(study: ReaderStudy, row: Any) -> str:
    """Say for whom a result holds; of a modality with one reader, for that reader alone."""
    n_readers = {mean.first: mean.n_readers for mean in _rows(study, "mean")}
    alone = [name for name in (row.first, row.second) if n_readers.get(name) == 1]
    if study.readers == "fixed" or (alone and row.n_readers == 1):
        readers = "this reader" if row.n_readers == 1 else "these readers"
    elif alone:
        readers = f"readers like these (“{alone[0]}”: its one reader alone)"
    else:
        readers = "readers like these"
    return f"for {readers} and cases like these"


def shown(row: Any) -> bool:
    """Return True if the interval that holds for all comparisons at once excludes 0."""
    return row.ci_low_all is not None and (row.ci_low_all > 0 or row.ci_high_all < 0)


def _overall(study: ReaderStudy, title: str, rows: list[Any]) -> list[Statement]:
    crossed = study.crossed.get(study.metrics[0])
    means = _rows(study, "mean")
    if crossed is None or crossed.overall is None or len(means) < 3:
        return []
    test = crossed.overall
    upper, lower = test.freedom
    name = f"χ²({upper})" if np.isinf(lower) else f"F({upper}, {lower:.2f})"
    freedom = (len(means) - 1) * (means[0].n_readers - 1)
    alone = study.readers == "fixed" or freedom >= FREEDOM_OF_THE_OVERALL_TEST
    names = [mean.first for mean in means]
    a_pair = any(shown(row) for row in rows if row.second in names)  # not against a system
    differ = test.p_value is not None and test.p_value < 0.05 and (alone or a_pair)
    verb = "differed" if differ else "was not shown to differ"
    text = (
        f"Readers' {title} {verb} between the {len(means)} modalities: "
        f"{name} = {test.statistic:.2f}, {p_equation(test.p_value)}, "
        f"{_scope(study, means[0])}."
    )
    return [Statement(text, differ)]


def _compared(row: Any, title: str, n_compared: int) -> str:
    """Say which is higher, or that no difference is shown, with the interval of the claim."""
    gap, ends, names = row.estimate, (row.ci_low_all, row.ci_high_all), (row.first, row.second)
    if shown(row) and gap < 0:
        gap, ends, names = -gap, (-ends[1], -ends[0]), names[::-1]
    verdict = (
        f"{title} was higher for “{names[0]}” than for “{names[1]}”"
        if shown(row)
        else f"{title} was not shown to differ between “{names[0]}” and “{names[1]}”"
    )
    interval = _ends(*ends)
    if ends[0] is not None:
        if row.cautious:
            interval = f"cautious {interval}"
        if n_compared > 1:
            interval += f" for all {n_compared} comparisons at once"
    return f"{verdict[0].upper()}{verdict[1:]}: difference {number(gap)} ({interval})"


def _ends(low: float | None, high: float | None) -> str:
    if low is None:
        return "no interval, because nothing varies"
    return f"95 % interval {range_text(low, high)}"


def notes(study: ReaderStudy, n_cases: int) -> list[str]:
    """Return the cautions on a study."""
    found = []
    if len(study.truth) < n_cases:
        found.append(f"{n_cases - len(study.truth)} of {n_cases} cases were read by nobody.")
    for label, name in ((True, "positive"), (False, "negative")):
        n = study.truth.loc[study.truth["label"] == label, "patient"].nunique()
        if n < _FEW:
            found.append(
                f"Only {counted(n, 'patient')} with {name} cases: intervals may be too narrow."
            )
    if any(row.cautious for row in _rows(study, "difference")):
        found.append(
            f"With fewer than {FREEDOM_OF_A_CLAIM} degrees of freedom between readers, published "
            "tests show a difference in up to 11 % of simulated studies without one; claims rest "
            "on cautious intervals."
        )
    counts = study.readings.groupby(["modality", "reader"]).size()
    if (counts < len(study.truth)).any():
        found.append("Some readers did not read all cases; each figure is of the cases they read.")
    return found


def write(study: ReaderStudy, out: Path, n_cases: int, cautions: Sequence[str] = ()) -> Path:
    """Write ``readers.csv``, the page ``readers.html`` and, last, ``readers.json``.

    `cautions` are those on truth and systems, beside the `notes` of the study itself.
    """
    said = statements(study)
    warned = [*cautions, *notes(study, n_cases)]
    first, *further = said
    stored = {
        "answer": first.text,
        "findings": [each._asdict() for each in said],
        "must_say": warned,
        "overall": {name: _test_record(each.overall) for name, each in study.crossed.items()},
        "components": {
            name: vars(each.components) if each.components else None
            for name, each in study.crossed.items()
        },
        "figures": study.figures.to_dict("records"),
    }
    write_csv(study.figures, out / "readers.csv")
    n_readings = study.readings["reader"].nunique()
    who = "1 reader" if n_readings == 1 else f"{n_readings} readers and systems"
    chart = ""
    if "auroc" in study.metrics:
        chart = page_element(svg_text(lambda: _roc_curves(study), "readers"), "ROC curves")
    template = template_environment(Path(__file__).parent).get_template("study.html.jinja")
    page = template.render(
        kicker=f"Reader study · {who} · {counted(len(study.truth), 'case')}",
        answer=first.text,
        statements=further,
        notes=warned,
        chart=chart,
        columns=_COLUMNS,
        rows=_cells(study),
        methods=_METHODS,
        versions=provenance()["versions"],
    )
    path = write_text(out / "readers.html", page)
    files = {name: file_digest(out / name) for name in ("readers.csv", path.name)}
    write_json(out / "readers.json", "readers", {**stored, "files": files})
    return path


def _cells(study: ReaderStudy) -> list[tuple[str, ...]]:
    """Return the texts of the table of all figures."""
    named = {"mean": "mean of readers", "system": "system"}
    rows: list[Any] = list(study.figures.itertuples())
    return [
        (
            METRICS[row.metric].title,
            row.first,
            row.second,
            named.get(row.kind, row.reader),
            number(row.estimate),
            range_text(row.ci_low, row.ci_high),
            range_text(row.ci_low_all, row.ci_high_all),
            p_value_text(row.p_value),
            row.design,
        )
        for row in rows
    ]


def _test_record(test: OverallTest | None) -> dict[str, Any] | None:
    """Return the test of all modalities for ``readers.json``; chi-square has one number."""
    if test is None:
        return None
    return {**vars(test), "freedom": [n for n in test.freedom if np.isfinite(n)]}


def _roc_curves(study: ReaderStudy) -> Figure:
    """Draw the mean ROC curve of the readers of each modality, and the curve of each system."""
    from cxr_compare.evaluation.overlays.notebook_figure import NotebookFigure

    readings = study.readings
    name = readings["modality"].where(readings["modality"] != "", readings["reader"])
    figure = NotebookFigure(figsize=(5, 4.6), dpi=72, layout="constrained")
    axes = figure.subplots()
    axes.grid(color=QUIET, alpha=0.25)
    axes.spines[:].set_visible(False)
    axes.set_title("ROC, mean of readers", loc="left", fontweight="bold")
    axes.set(xlabel="1 − specificity", ylabel="Sensitivity", xlim=(0, 1), ylim=(0, 1))
    for position, (label, group) in enumerate(readings.groupby(name, sort=False)):
        heights = []
        for _, rows in group.groupby("reader", sort=False):
            line = roc_and_pr_curves(study.truth["label"].loc[rows["case"]], rows["rating"])
            heights.append(np.interp(_STEPS, line["fpr"], line["tpr"]))
        dash = _DASHES[position % len(_DASHES)]
        x, y = np.r_[0, _STEPS], np.r_[0, np.mean(heights, axis=0)]
        axes.plot(x, y, dash, color=system_mark(position).colour, linewidth=2, label=str(label))
    axes.plot([0, 1], [0, 1], ":", color=QUIET, label="guessing")
    figure.legend(loc="outside lower left", ncols=2, frameon=False, alignment="left")
    return figure


def _rows(study: ReaderStudy, kind: str) -> list[Any]:
    """Return the rows of one kind of the metric that decides."""
    table = study.figures
    return list(table[(table["kind"] == kind) & (table["metric"] == study.metrics[0])].itertuples())
