"""Write `report.html`: one self-contained file that opens with the answer.

Pictures are read, drawn and encoded one at a time, and their number is bounded, so neither the
file nor the memory grows with the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.folders import atomic_path, make_folder
from evaluation.cases import read_cases
from evaluation.charts import (
    MARKERS,
    Whisker,
    policies_of,
    precision_recall_chart,
    roc_chart,
    whiskers,
)
from evaluation.figures import save_figures
from evaluation.gallery import select_cases
from evaluation.intervals import find_difference, find_interval, rows_of
from evaluation.report_cases import Gallery, build_gallery
from evaluation.report_facts import cost_rows, decision_rows
from evaluation.report_tables import confusion_matrices, metric_table
from evaluation.report_words import meanings, methods
from evaluation.verdict import PRIMARY_METRIC, state_verdict
from evaluation.wording import number, policy_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from data_prep.dataset import DataSet
    from evaluation.compare import Comparison

MAX_BYTES = 10_000_000
_CONTENTS = (
    ("figures", "Side by side"),
    ("curves", "Curves"),
    ("confusion", "Confusion matrices"),
    ("place", "Right place?"),
    ("cost", "Cost"),
    ("gallery", "Cases"),
    ("reading", "How to read"),
    ("methods", "Methods and limits"),
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
    progress: Callable[..., None] | None = None,
) -> Path:
    """Write the report, its figures and its overlays.

    Args:
        comparison: What ``cxr compare`` found.
        dataset: The data set it was found on; without pixels the report has no pictures.
        out: Report folder; made if absent. Gets ``report.html``, ``figures/``, ``overlays/``.
        seed: Of the random sample of agreement.
        progress: Called once per picture drawn.

    Returns:
        Path of ``report.html``, written last.

    Raises:
        ValueError: The report would exceed 10 MB.
    """
    out = Path(out)
    make_folder(out / "figures")
    _clear(out / "overlays")
    save_figures(comparison, out / "figures")
    policy = main_policy(comparison)
    gallery = _draw_gallery(comparison, dataset, out, policy, seed, progress)
    html = render_report(comparison, gallery, data_name=dataset.name)
    size = len(html.encode())
    if size > MAX_BYTES:
        raise ValueError(f"report.html would have {size:,} bytes; at most {MAX_BYTES:,} allowed")
    with atomic_path(out / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return out / "report.html"


def _clear(folder: Path) -> None:
    """Remove the pictures of an earlier report: their cases may not be those of this one."""
    for picture in folder.glob("*.png"):
        picture.unlink()


def main_policy(comparison: Comparison) -> str:
    """Return the policy that the gallery uses: best F1 where decided, else the first; or ""."""
    policies = policies_of(comparison)
    return "max_f1" if "max_f1" in policies else next(iter(policies), "")


def _draw_gallery(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    policy: str,
    seed: int,
    progress: Callable[..., None] | None,
) -> Gallery:
    """Choose and draw the cases, or say why there are none."""
    if not dataset.has_pixels:
        reason = "The data set has no pixels, so there are no pictures: figures only."
        return Gallery.empty(reason)
    categories = select_cases(comparison.decisions, comparison.systems, policy, seed=seed)
    if not categories:
        reason = "No system has a threshold, so no image is right or wrong yet: see cxr tune."
        return Gallery.empty(reason)
    return build_gallery(
        categories,
        read_cases(comparison, dataset, policy),
        dataset,
        finding=comparison.target.display_name,
        policy=policy_words(policy),
        folder=out / "overlays",
        progress=progress,
    )


def render_report(comparison: Comparison, gallery: Gallery, *, data_name: str = "") -> str:
    """Return the report as HTML; pure, apart from reading the templates.

    Args:
        comparison: What ``cxr compare`` found.
        gallery: The drawn cases.
        data_name: Name of the data set.
    """
    finding = comparison.target.display_name
    verdict = state_verdict(comparison.metrics, comparison.systems, finding, seeds=comparison.seeds)
    policies = policies_of(comparison)
    place = metric_table(comparison, place=True)
    confusion = confusion_matrices(comparison)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("report.html.jinja").render(
        title=f"{' and '.join(comparison.systems)}: {finding}",
        finding=finding,
        data_name=data_name,
        counts=_counts(comparison),
        verdict=verdict,
        strip=_strip(comparison),
        notes=comparison.notes,
        contents=[entry for entry in _CONTENTS if entry[0] != "confusion" or confusion],
        table=metric_table(comparison, place=False),
        place=place,
        place_reason=place.reasons or "no system points at a place.",
        charts=[roc_chart(comparison), precision_recall_chart(comparison)],
        policies=[
            (MARKERS[position % len(MARKERS)], policy_words(policy))
            for position, policy in enumerate(policies)
        ],
        confusion=confusion,
        cost=cost_rows(comparison),
        decisions=decision_rows(comparison),
        gallery=gallery,
        meanings=meanings(comparison),
        methods=methods(comparison),
        provenance=comparison.provenance,
    )


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
    """Return the opening chart: each system's AUROC on one axis, differences on their own."""
    systems, metrics = comparison.systems, comparison.metrics
    scores = [find_interval(metrics, name, PRIMARY_METRIC) for name in systems]
    placed, axis = whiskers(scores)
    rows = [
        StripRow(name, position, number(score.estimate), score.ends, whisker)
        for position, (name, score, whisker) in enumerate(zip(systems, scores, placed, strict=True))
        if whisker is not None
    ]
    words = f"Systems from {number(axis[0], 2)} to {number(axis[1], 2)}"
    gaps = [find_difference(metrics, systems[0], name, PRIMARY_METRIC) for name in systems[1:]]
    placed, axis = whiskers(gaps, around_zero=True)
    differences = [
        StripRow(f"{systems[0]} − {name}", None, number(gap.estimate), gap.ends, whisker)
        for name, gap, whisker in zip(systems[1:], gaps, placed, strict=True)
        if whisker is not None
    ]
    if differences:
        words += f"; difference from {number(axis[0], 2)} to {number(axis[1], 2)}, dashed line at 0"
    return {"rows": rows + differences, "difference": bool(differences), "axis": words + "."}
