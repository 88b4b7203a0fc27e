"""Write `report.html`: one self-contained file that opens with the answer.

Pictures are read, drawn and encoded one at a time, and their number is bounded, so neither the
file nor the memory grows with the data set.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data_prep.contracts.folders import atomic_path, make_folder
from data_prep.contracts.tables import read_json
from evaluation.compare.intervals import find_difference, find_interval, rows_of
from evaluation.compare.verdict import PRIMARY_METRIC
from evaluation.metrics.registry import highlighted, metric_title
from evaluation.metrics.words import number, policy_words
from evaluation.report.cases import read_cases
from evaluation.report.charts import cost_charts, policies_of, report_charts, save_figures
from evaluation.report.checklists import checklists, methods_paragraph
from evaluation.report.cost_table import cost_rows
from evaluation.report.facts import decision_rows, meanings, methods
from evaluation.report.files import CASES_PAGES, FIGURES, METRICS, METRICS_TABLE, OVERLAYS, PAGE
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
from evaluation.report.plot import MARKERS, Chart, legend_sample, to_svg
from evaluation.report.result_tables import write_table_files
from evaluation.report.tables import (
    Whisker,
    confusion_matrices,
    difference_tests,
    every_pair,
    metric_table,
    unit_tables,
    whiskers,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from data_prep.store.dataset import DataSet, Target
    from evaluation.compare.comparison import Comparison


MOST_STEPS = 400
"""Positions of a slider; a curve is not told finer on a screen."""

MOST_LISTED = 20_000
"""Images that the page lists by id, 1 MB; a larger set has its counts only."""


def explore_thresholds(
    decisions: pd.DataFrame,
    systems: list[str],
    thresholds: Mapping[str, Mapping[str, float | None]],
    *,
    most_steps: int = MOST_STEPS,
    most_listed: int = MOST_LISTED,
) -> dict[str, Any]:
    """Count, for each system, what is called positive at each of some hundred thresholds.

    A step is a threshold: images with ``score >= threshold`` are positive. An image's place among
    the steps says all about it: it is positive up to there. So the page needs no scores, and its
    counts are those of the tables at every frozen threshold.

    Args:
        decisions: ``image_id, system, label, score``; images of unknown truth are left out.
        systems: Which, in which order.
        thresholds: Per system and policy; these are always among the steps.
        most_steps: Bound on the other steps.
        most_listed: Above this many images ``images`` is empty.

    Returns:
        ``positives`` and ``negatives`` (counts), ``steps``: per system ``at`` (rising), ``tp``,
        ``fp`` and ``frozen`` (policy to step); ``images``: ``[image_id, label, step, ...]`` with
        one step a system, -1 where no step calls it and None where the system has no score.

    Example:
        >>> frame = pd.DataFrame(
        ...     {"image_id": list("abc"), "system": "A", "label": [1, 0, 1],
        ...      "score": [0.9, 0.5, 0.2]})
        >>> told = explore_thresholds(frame, ["A"], {"A": {"max_f1": 0.5}})
        >>> told["steps"][0]["at"], told["steps"][0]["tp"], told["steps"][0]["fp"]
        ([0.2, 0.5, 0.9], [2, 1, 1], [1, 1, 0])
        >>> told["steps"][0]["frozen"], told["images"][1]
        ({'max_f1': 1}, ['b', 0, 1])
    """
    known = decisions[decisions["label"].notna()].drop_duplicates(["image_id", "system"])
    labels = known.drop_duplicates("image_id").set_index("image_id")["label"].sort_index() >= 1
    wide = known.pivot(index="image_id", columns="system", values="score")
    scores = wide.reindex(index=labels.index, columns=systems).to_numpy(dtype=np.float64)
    truth = labels.to_numpy(dtype=bool)
    steps, places = [], []
    for column, name in zip(scores.T, systems, strict=True):
        frozen = {
            key: value for key, value in thresholds.get(name, {}).items() if value is not None
        }
        at = _thresholds(column, list(frozen.values()), most_steps)
        place = np.searchsorted(at, column, side="right") - 1
        steps.append(_steps(at, place, truth, ~np.isnan(column), frozen))
        places.append(
            [None if lost else int(p) for p, lost in zip(place, np.isnan(column), strict=True)]
        )
    listed = len(labels) <= most_listed
    rows = zip(labels.index, truth.tolist(), *places, strict=True) if listed else ()
    return {
        "positives": int(truth.sum()),
        "negatives": int((~truth).sum()),
        "steps": steps,
        "images": [[str(image), int(label), *place] for image, label, *place in rows],
    }


def _thresholds(
    scores: npt.NDArray[np.float64], frozen: list[float], most: int
) -> npt.NDArray[np.float64]:
    """Some of the scores, evenly by rank, and every frozen threshold; rising."""
    seen = np.unique(scores[~np.isnan(scores)])
    if len(seen) > most:
        seen = seen[np.unique(np.linspace(0, len(seen) - 1, most).round().astype(int))]
    return np.unique(np.concatenate([seen, np.asarray(frozen, dtype=np.float64)]))


def _steps(
    at: npt.NDArray[np.float64],
    place: npt.NDArray[np.intp],
    truth: npt.NDArray[np.bool_],
    scored: npt.NDArray[np.bool_],
    frozen: dict[str, float],
) -> dict[str, Any]:
    """Counts at each step: an image is positive at every step up to its place."""

    def called(chosen: npt.NDArray[np.bool_]) -> list[int]:
        counts = np.bincount(place[chosen & scored & (place >= 0)], minlength=len(at))
        return [int(count) for count in counts[::-1].cumsum()[::-1]]

    rising = at.tolist()
    return {
        "at": [float(f"{value:.6g}") for value in rising],
        "tp": called(truth),
        "fp": called(~truth),
        "frozen": {policy: bisect.bisect_left(rising, value) for policy, value in frozen.items()},
    }


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
    policy, decisions, systems = main_policy(comparison), comparison.decisions, comparison.names
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
    charts = report_charts(comparison)
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
        charts=[(chart, to_svg(chart)) for chart in charts],
        legend=_legend(charts, policies),
        confusion=confusion,
        exploration=_exploration(comparison, galleries),
        cost=cost_rows(comparison),
        cost_charts=[(chart, to_svg(chart)) for chart in cost_charts(comparison)],
        decisions=decision_rows(comparison),
        gallery=galleries[0],
        meanings=meanings(comparison),
        methods=methods(comparison),
        checklists=checklists(comparison, dataset),
        paragraph=methods_paragraph(comparison, dataset),
        provenance=comparison.provenance,
    )


def _legend(charts: Sequence[Chart], policies: Sequence[str]) -> list[tuple[str, str]]:
    """Return a sample and its words for each system's line and each policy's marker."""
    systems = {curve.name: curve.position for chart in charts for curve in chart.curves}
    lines = [(legend_sample(position), name) for name, position in systems.items()]
    return lines + [
        (legend_sample(marker=MARKERS[place % len(MARKERS)]), f"threshold: {policy_words(policy)}")
        for place, policy in enumerate(policies)
    ]


def _exploration(comparison: Comparison, galleries: list[Gallery]) -> dict[str, Any]:
    """What the page's script reads: counts at every threshold, and where each image is drawn."""
    systems = comparison.names
    thresholds = {name: each.thresholds for name, each in comparison.systems.items()}
    return {
        **explore_thresholds(comparison.decisions, systems, thresholds),
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
    systems, metrics, asked = comparison.names, comparison.metrics, comparison.protocol
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


@dataclass(frozen=True)
class TargetSection:
    """One target on the page.

    Args:
        title: Its name.
        link: Its own report, relative.
        count: On how many images and patients.
        systems: Columns.
        rows: A metric's title, then a figure with its interval per system.
        notes: What a reader must know.
    """

    title: str
    link: str
    count: str
    systems: list[str]
    rows: list[tuple[str, list[str]]]
    notes: list[str]


def write_targets_page(out: Path, targets: Sequence[Target], data_name: str) -> Path:
    """Join the reports below a folder: ``metrics.csv`` over all, and ``report.html`` last.

    Args:
        out: Folder that holds a report per target, each in a folder of the target's name.
        targets: In the order to show them.
        data_name: Name of the data set.

    Returns:
        The page.

    Raises:
        InputError: A target's report is not complete.
    """
    read = {target.name: read_json(out / target.name / METRICS, "metrics") for target in targets}
    tables = {name: pd.DataFrame(payload["metrics"]) for name, payload in read.items()}
    with atomic_path(out / METRICS_TABLE) as temporary:
        pd.concat(list(tables.values()), ignore_index=True).to_csv(temporary, index=False)
    sections = [_section(target, read[target.name], tables[target.name]) for target in targets]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    page = environment.get_template("targets.html.jinja").render(
        data_name=data_name, sections=sections
    )
    with atomic_path(out / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return out / PAGE


def _section(target: Target, payload: dict[str, Any], table: pd.DataFrame) -> TargetSection:
    by_image = table[table["unit"] == "image"]
    systems = list(payload["systems"])
    rows = []
    for metric in highlighted("targets"):
        figures = [find_interval(by_image, name, metric) for name in systems]
        told = [
            f"{number(figure.estimate)} ({figure.ends})" if figure.bounded
            else number(figure.estimate)
            for figure in figures
        ]  # fmt: skip
        rows.append((metric_title(metric), told))
    counted = by_image[(by_image["metric"] == "auroc") & (by_image["subgroup"] == "all")]
    count = ""
    if len(counted):
        first = counted.iloc[0]
        count = (
            f"{int(first['n_images']):,} test images of {int(first['n_patients']):,} patients, "
            f"{int(first['n_positive']):,} positive"
        )
    link = f"{target.name}/report.html"
    return TargetSection(target.display_name, link, count, systems, rows, list(payload["notes"]))
