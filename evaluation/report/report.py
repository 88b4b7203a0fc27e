"""Write `report.html`: one self-contained file that opens with the answer.

Images are read, drawn and encoded one at a time, and their number is bounded, so neither the
file nor the memory grows with the data set.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.contracts.folders import atomic_path, make_folder
from evaluation.report.cases import read_cases
from evaluation.report.charts import (
    cost_charts,
    policies_of,
    report_charts,
    report_legend,
    save_figures,
)
from evaluation.report.checklists import checklists, methods_paragraph
from evaluation.report.cost_table import cost_rows
from evaluation.report.exploration import exploration
from evaluation.report.facts import MethodFacts, decision_rows, meanings
from evaluation.report.files import CASES_PAGES, FIGURES, OVERLAYS, PAGE
from evaluation.report.gallery import (
    CASES_PER_CATEGORY,
    Gallery,
    build_galleries,
    case_places,
    disagreement,
    select_cases,
)
from evaluation.report.grids import (
    agreement,
    group_tables,
    published,
    subgroups,
    transfer_table,
    where_tables,
)
from evaluation.report.plot import to_svg
from evaluation.report.result_tables import write_table_files
from evaluation.report.tables import (
    confusion_matrices,
    difference_tests,
    every_pair,
    image_count,
    metric_table,
    opening_strip,
    unit_tables,
)
from evaluation.report.templates import render

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison
    from evaluation.report.tables import TableRow


MAX_BYTES = 10_000_000


def write_report(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    *,
    seed: int = 0,
    cases: int = CASES_PER_CATEGORY,
    rows: Sequence[TableRow] = (),
    progress: Callable[..., None] | None = None,
) -> Path:
    """Write the report, its figures and its overlays.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: The data set it was found on; without pixels the report has no images.
        out: Report folder; made if absent. Gets ``report.html``, ``cases-002.html`` and so on
            where there are more cases than the report holds, ``table.tex``, ``table.md``,
            ``figures/`` and ``overlays/``.
        seed: Of the random sample of agreement.
        cases: Drawn of each kind at most.
        rows: Of the table, see `table_rows`; without any the usual six.
        progress: Called once per image drawn.

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
    write_table_files(comparison, out, rows)
    galleries = _draw_galleries(comparison, dataset, out, seed, cases, progress)
    pages = {
        name: render("cases.html.jinja", gallery=gallery, **_titles(comparison, dataset.name))
        for gallery in galleries[1:]
        for name in [gallery.pages[gallery.page - 1]]
    }
    pages[PAGE] = _render_report(comparison, galleries, dataset)
    for name, html in pages.items():
        size = len(html.encode())
        if size > MAX_BYTES:
            raise ValueError(f"{name} would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
        with atomic_path(out / name) as path:
            path.write_text(html, encoding="utf-8")
    return out / PAGE


def _main_policy(comparison: Comparison) -> str:
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
    policy, decisions, systems = _main_policy(comparison), comparison.decisions, comparison.names
    if not dataset.has_pixels:
        reason = "The data set has no pixels, so no image is shown: figures only."
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
        policy=policy,
        folder=out / OVERLAYS,
        gaps=disagreement(decisions, systems),
        progress=progress,
    )


def _titles(comparison: Comparison, data_name: str) -> dict[str, str]:
    finding = comparison.target.display_name
    title = f"{' and '.join(comparison.systems)}: {finding}"
    return {"title": title, "finding": finding, "data_name": data_name}


def _render_report(comparison: Comparison, galleries: list[Gallery], dataset: DataSet) -> str:
    """Return the report as HTML; pure, apart from reading the templates."""
    policy = _main_policy(comparison)
    place = metric_table(comparison, "place")
    charts = report_charts(comparison)
    judged = dataset.images[dataset.images["image_id"].isin(comparison.decisions["image_id"])]
    sources = set(judged.get("source", []))
    return render(
        "report.html.jinja",
        **_titles(comparison, dataset.name),
        counts=image_count(comparison.figures),
        verdict=comparison.answer,
        strip=opening_strip(comparison),
        notes=comparison.notes,
        table=metric_table(comparison),
        further=metric_table(comparison, "further"),
        by_unit=unit_tables(comparison),
        tests=difference_tests(comparison),
        published=published(comparison, sources, policy),
        place=place,
        rates=metric_table(comparison, "rates"),
        pairs=every_pair(comparison),
        place_reason=place.reasons,
        transfer=transfer_table(comparison),
        agreement=agreement(comparison, policy),
        subgroups=subgroups(comparison, policy),
        where=where_tables(comparison),
        groups=group_tables(comparison),
        charts=[(chart, to_svg(chart)) for chart in charts],
        legend=report_legend(charts, policies_of(comparison)),
        confusion=confusion_matrices(comparison),
        exploration=exploration(comparison, case_places(galleries)),
        cost=cost_rows(comparison),
        cost_charts=[(chart, to_svg(chart)) for chart in cost_charts(comparison)],
        decisions=decision_rows(comparison),
        gallery=galleries[0],
        meanings=meanings(comparison),
        how=MethodFacts.of(comparison),
        checklists=checklists(comparison, dataset),
        paragraph=methods_paragraph(comparison, dataset),
        provenance=comparison.provenance,
    )
