"""Write `report.html`: one self-contained file that opens with the answer.

Pictures are read, drawn and encoded one at a time, and their number is bounded, so neither the
file nor the memory grows with the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.contracts.folders import atomic_path, make_folder
from evaluation.compare.intervals import find_difference, find_interval, rows_of
from evaluation.compare.verdict import PRIMARY_METRIC
from evaluation.metrics.registry import number, policy_words
from evaluation.report.cases import read_cases
from evaluation.report.charts import (
    MARKERS,
    Chart,
    Whisker,
    policies_of,
    whiskers,
)
from evaluation.report.checklists import checklists, methods_paragraph
from evaluation.report.cost_charts import FRAME, cost_charts
from evaluation.report.cost_table import cost_rows
from evaluation.report.exploration import explore_thresholds
from evaluation.report.facts import decision_rows
from evaluation.report.figures import save_figures
from evaluation.report.files import CASES_PAGES, FIGURES, OVERLAYS, PAGE
from evaluation.report.gallery import CASES_PER_CATEGORY, disagreement, select_cases
from evaluation.report.grids import agreement, published, subgroups
from evaluation.report.probability_charts import all_charts
from evaluation.report.report_pages import Gallery, build_galleries, case_places
from evaluation.report.report_tests import difference_tests, every_pair
from evaluation.report.report_where import group_tables, where_tables
from evaluation.report.report_words import meanings, methods
from evaluation.report.table_files import write_table_files
from evaluation.report.tables import confusion_matrices, metric_table, unit_tables
from evaluation.report.transfer import transfer_charts, transfer_table
from evaluation.report.usefulness_charts import cost_chart, net_benefit_chart

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison

MAX_BYTES = 10_000_000
_CONTENTS = (
    ("figures", "Side by side"),
    ("published", "Published figures"),
    ("curves", "Curves"),
    ("confusion", "Confusion matrices"),
    ("failures", "Where each fails"),
    ("gallery", "Cases"),
    ("cost", "Cost"),
    ("reading", "How to read"),
    ("methods", "Methods and limits"),
    ("checklists", "Checklists"),
    ("provenance", "Provenance"),
)


@dataclass(frozen=True)
class StripRow:
    """One line of the opening chart: a system, or (position None) the paired difference."""

    name: str
    position: int | None
    text: str
    ends: str
    whisker: Whisker


def write_report(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    *,
    seed: int = 0,
    cases: int = CASES_PER_CATEGORY,
    progress: Callable[..., None] | None = None,
) -> Path:
    """Write the report, its figures and its overlays.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: The data set it was found on; without pixels the report has no pictures.
        out: Report folder; made if absent. Gets ``report.html``, ``cases-002.html`` and so on
            where there are more cases than the report holds, ``table.tex``, ``table.md``,
            ``figures/`` and ``overlays/``.
        seed: Of the random sample of agreement.
        cases: Drawn of each kind at most.
        progress: Called once per picture drawn.

    Returns:
        Path of ``report.html``, written last.

    Raises:
        ValueError: A page would exceed 10 MB.
    """
    out = Path(out)
    make_folder(out / FIGURES)
    for stale in (*(out / OVERLAYS).glob("*.png"), *out.glob(CASES_PAGES)):
        stale.unlink()  # the cases of an earlier report may not be those of this one
    save_figures(comparison, out / FIGURES)
    write_table_files(comparison, out)
    galleries = _draw_galleries(comparison, dataset, out, seed, cases, progress)
    pages = {
        name: _render("cases.html.jinja", gallery=gallery, **_titles(comparison, dataset.name))
        for gallery in galleries[1:]
        for name in [gallery.pages[gallery.page - 1]]
    }
    pages[PAGE] = render_report(comparison, galleries, dataset)
    for name, html in pages.items():
        size = len(html.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        with atomic_path(out / name) as path:
            path.write_text(html, encoding="utf-8")
    return out / PAGE


def main_policy(comparison: Comparison) -> str:
    """Return the policy that the gallery uses: best F1 where decided, else the first; or ""."""
    policies = policies_of(comparison)
    return "max_f1" if "max_f1" in policies else next(iter(policies), "")


def _draw_galleries(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    seed: int,
    cases: int,
    progress: Callable[..., None] | None,
) -> list[Gallery]:
    """Choose and draw the cases, or say why there are none."""
    policy, decisions, systems = main_policy(comparison), comparison.decisions, comparison.systems
    if not dataset.has_pixels:
        reason = "The data set has no pixels, so there are no pictures: figures only."
        return [Gallery.empty(reason)]
    categories = select_cases(decisions, systems, policy, per_category=cases, seed=seed)
    if not categories:
        reason = "No system has a threshold, so no image is right or wrong yet: see cxr tune."
        return [Gallery.empty(reason)]
    return build_galleries(
        categories,
        read_cases(comparison, dataset, policy),
        dataset,
        finding=comparison.target.display_name,
        policy=policy_words(policy),
        folder=out / OVERLAYS,
        gaps=disagreement(decisions, systems),
        progress=progress,
    )


def _titles(comparison: Comparison, data_name: str) -> dict[str, str]:
    finding = comparison.target.display_name
    title = f"{' and '.join(comparison.systems)}: {finding}"
    return {"title": title, "finding": finding, "data_name": data_name}


def _render(template: str, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "sort_keys": True}
    return environment.get_template(template).render(**values)


def render_report(comparison: Comparison, galleries: list[Gallery], dataset: DataSet) -> str:
    """Return the report as HTML; pure, apart from reading the templates.

    Args:
        comparison: What ``cxr compare`` found.
        galleries: The drawn cases, page by page.
        dataset: For its name, and for who and what is on the images.
    """
    policies, policy = policies_of(comparison), main_policy(comparison)
    place, confusion = metric_table(comparison, "place"), confusion_matrices(comparison)
    judged = dataset.images[dataset.images["image_id"].isin(comparison.decisions["image_id"])]
    sources = set(judged.get("source", []))
    theirs = published(comparison, sources, policy)
    absent = {"confusion": not confusion, "published": theirs is None}
    return _render(
        "report.html.jinja",
        **_titles(comparison, dataset.name),
        counts=_counts(comparison),
        verdict=comparison.answer,
        strip=_strip(comparison),
        notes=comparison.notes,
        contents=[entry for entry in _CONTENTS if not absent.get(entry[0])],
        table=metric_table(comparison),
        further=metric_table(comparison, "further"),
        by_unit=unit_tables(comparison),
        tests=difference_tests(comparison),
        published=theirs,
        place=place,
        rates=metric_table(comparison, "rates"),
        pairs=every_pair(comparison),
        place_reason=place.reasons or "no system points at a place.",
        transfer=transfer_table(comparison),
        agreement=agreement(comparison, policy),
        subgroups=subgroups(comparison, policy),
        where=where_tables(comparison),
        groups=group_tables(comparison),
        charts=_charts(comparison),
        policies=[
            (MARKERS[position % len(MARKERS)], policy_words(policy))
            for position, policy in enumerate(policies)
        ],
        confusion=confusion,
        exploration=_exploration(comparison, galleries),
        cost=cost_rows(comparison),
        cost_charts=cost_charts(comparison),
        cost_frame=FRAME,
        decisions=decision_rows(comparison),
        gallery=galleries[0],
        meanings=meanings(comparison),
        methods=methods(comparison),
        checklists=checklists(comparison, dataset),
        paragraph=methods_paragraph(comparison, dataset),
        provenance=comparison.provenance,
    )


def _charts(comparison: Comparison) -> list[Chart]:
    """Return every chart that has a line."""
    charts = [*all_charts(comparison), *transfer_charts(comparison)]
    charts += [net_benefit_chart(comparison), cost_chart(comparison)]
    return [chart for chart in charts if chart.series]


def _exploration(comparison: Comparison, galleries: list[Gallery]) -> dict[str, Any]:
    """What the page's script reads: counts at every threshold, and where each image is drawn."""
    systems = comparison.systems
    return {
        **explore_thresholds(comparison.decisions, systems, comparison.thresholds),
        "systems": systems,
        "policies": {policy: policy_words(policy) for policy in policies_of(comparison)},
        "drawn": case_places(galleries),
    }


def _counts(comparison: Comparison) -> str:
    rows = rows_of(comparison.metrics)
    rows = rows[rows["metric"] == PRIMARY_METRIC]
    if rows.empty:
        return ""
    row = rows.iloc[0]
    return (
        f"{int(row['n_images']):,} test images of {int(row['n_patients']):,} patients, "
        f"{int(row['n_positive']):,} positive"
    )


def _strip(comparison: Comparison) -> dict[str, Any]:
    """Return the opening chart: the primary figure on one axis, differences on their own."""
    systems, metrics, asked = comparison.systems, comparison.metrics, comparison.protocol
    primary = asked.metric, asked.policy
    scores = [find_interval(metrics, name, *primary) for name in systems]
    placed, axis = whiskers(scores)
    rows = [
        StripRow(name, position, number(score.estimate), score.ends, whisker)
        for position, (name, score, whisker) in enumerate(zip(systems, scores, placed, strict=True))
        if whisker is not None
    ]
    words = f"Systems from {number(axis[0], 2)} to {number(axis[1], 2)}"
    gaps = [find_difference(metrics, systems[0], name, *primary) for name in systems[1:]]
    placed, axis = whiskers(gaps, around_zero=True)
    differences = [
        StripRow(f"{systems[0]} − {name}", None, number(gap.estimate), gap.ends, whisker)
        for name, gap, whisker in zip(systems[1:], gaps, placed, strict=True)
        if whisker is not None
    ]
    if differences:
        words += f"; difference from {number(axis[0], 2)} to {number(axis[1], 2)}, dashed line at 0"
    return {
        "title": asked.title[0].upper() + asked.title[1:],
        "rows": rows + differences,
        "difference": bool(differences),
        "axis": words + ".",
    }
