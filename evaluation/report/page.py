"""Page of a report, ``report.html``: one self-contained file that begins with the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.files import atomic_path, make_folder, write_text
from cxr_compare.evaluation.figures import too_high
from cxr_compare.evaluation.groups.lesions import ALL_LESIONS, ERRORS
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import FROC, METRICS, metric_title, metrics_of
from cxr_compare.evaluation.policies import is_given, policy_text
from cxr_compare.evaluation.report import files, tables
from cxr_compare.evaluation.report.answer import Answer
from cxr_compare.evaluation.report.case_selection import (
    ImageKind,
    case_titles,
    false_alarm_key,
    missed_key,
)
from cxr_compare.evaluation.report.charts import chart_names, chart_svg
from cxr_compare.evaluation.report.composition import shown_composition
from cxr_compare.evaluation.report.overlay_page import (
    OVERLAYS_PAGE,
    Overlay,
    lines_of,
    picture_source,
    thumbnail_of,
    write_overlay_page,
)
from cxr_compare.evaluation.report.page_templates import template_environment
from cxr_compare.evaluation.report.paper import write_paper
from cxr_compare.evaluation.verdict.cautions import without_scores
from cxr_compare.evaluation.verdict.claims import NOT_EQUAL
from cxr_compare.evaluation.verdict.prose import listing

if TYPE_CHECKING:
    from cxr_compare.evaluation.overlays.sheet import Panel
    from cxr_compare.evaluation.report.result_tables import ResultTables

_HERE = Path(__file__).parent
_MAIN_CHARTS = 3
"""Charts that stand on the page before a fold."""
_SIDE = 360
"""Longer side of a panel on the page, px."""
_QUALITY = 82
_EXAMPLES = 3
_MOST_NAMED = 4
"""Systems whose errors one sentence counts."""
_VALUE = re.compile(r"([−\d.,]+) (\(.*?\))(; .*)?")


class Case(NamedTuple):
    """A drawn test image on the page: its panels, and all systems over one another."""

    kind: str
    total: str
    title: str
    panels: list[dict[str, Any]]
    together: dict[str, Any]


def write_page(
    result: ResultTables, out: Path, progress: Callable[..., None] | None = None
) -> dict[str, str]:
    """Write the page, its charts, its table for a paper and the drawings of its cases.

    The result has the file of each drawing by image id, or by the number that is shown for it.
    `progress` is called for each drawing.
    """
    make_folder(out / files.FIGURES)
    for stale in (*(out / files.OVERLAYS).glob("*"), *(out / files.FIGURES).glob("*")):
        stale.unlink()
    charts = {}
    for name in chart_names(result):
        file, charts[name] = chart_svg(result, name)
        (out / files.FIGURES / f"{name}.svg").write_bytes(file)
    ordered = [chart for name, chart in charts.items() if name != "forest"]
    cases, drawn, links = _draw_cases(result, out, progress)
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case.kind, []).append(case)
    answer, main, figures = result.answer, result.table, result.figures
    examples = _examples(kinds, case_titles(answer.single, has_joint=bool(answer.joint)).missed)
    source = result.images
    before_fold, in_fold = main.iloc[:, : tables.MOST_COLUMNS], main.iloc[:, tables.MOST_COLUMNS :]
    shown = result.shown
    single = [name for name in shown if name != answer.joint]
    differences = tables.shown_claims(answer, figures)
    further = _of(differences, "places", "further")
    confusion = tables.confusion(figures, shown, answer.policy)
    participants, flow = shown_composition(answer.composition)
    methods_text = write_paper(answer, figures, out)
    page = render(
        "report.html.jinja",
        answer=answer,
        single=single,
        first_lines=_first_lines(result, confusion, single),
        has_drawings=bool(drawn),
        methods_text=methods_text,
        counts=_counts(answer),
        forest=charts.get("forest", ""),
        charts=ordered[:_MAIN_CHARTS],
        further=ordered[_MAIN_CHARTS:],
        examples=examples,
        legend=source.legend(_marks(p for each in cases for p in each.panels)) if source else "",
        example_legend=source.example_legend(_marks(e.together for e in examples))
        if source
        else "",
        cases=kinds,
        links=links,
        main=before_fold,
        further_figures=in_fold,
        image_blind=tables.image_blind_table(answer, figures),
        costs=tables.cost_table(answer, shown),
        remarks=[*_undefined(result, main), *_too_high(result, before_fold)],
        further_remarks=list(_too_high(result, in_fold)),
        n_shown=len(shown),
        claims=tables.claim_table(_of(differences, "answer", "joint"), answer.claims),
        further_claims=tables.claim_table(further, answer.claims),
        opens_further=len(further) <= tables.MOST_SHOWN,
        any_tested=any(
            claim["p_value"] is not None for claim in _of(differences, "answer", "joint")
        ),
        is_corrected=any(claim["p_holm"] != claim["p_value"] for claim in answer.claims),
        two_figures=len(answer.primary_metrics) > 1,
        figure_of_images="AUROC" if METRICS[answer.primary[0]].of_places else answer.primary_title,
        n_hidden_claims=len(answer.claims) - len(differences),
        confusion=confusion,
        errors=tables.error_table(
            confusion, result.decisions, result.lesions, shown, answer.policy, answer.joint
        ),
        lesions_found=metric_title("lesion_recall"),
        lesions_missed=tables.LESIONS_MISSED,
        box_errors=tables.box_error_table(result.lesions, single),
        corrections=tables.correction_table(result.decisions, shown, answer.policy),
        groups=tables.group_tables(result.groups, result.lesions, single),
        differences=tables.difference_table(result.groups, single),
        uncertain=tables.uncertain_table(result.groups, shown),
        shortcuts=tables.shortcut_table(result.groups, shown),
        participants=participants,
        flow=flow,
        recipes=tables.training_settings(
            {name: record for name, record in answer.provenance.systems.items() if name in shown}
        ),
        metrics=[METRICS[name] for name in metrics_of("main") if metric_title(name) in main],
        methods=_methods(figures),
        no_threshold=_no_threshold(figures, answer),
        effective=_effective_patients(result),
        given={policy: is_given(policy) for of in answer.thresholds.values() for policy in of},
        unscored=[
            without_scores(name)
            for name in shown
            if name in confusion and not answer.thresholds[name]
        ],
        not_equal=NOT_EQUAL,
        untested_places=_untested_places(figures, single),
    )
    write_text(out / files.PAGE, page)
    return drawn


def render(template: str, **values: Any) -> str:
    """Fill in a template (Jinja) as an HTML page, in which special characters are escaped."""
    environment = template_environment(_HERE, _HERE)
    environment.filters.update(
        policy_text=policy_text, parts=_parts, counted=counted, unbroken=_unbroken
    )
    return environment.get_template(template).render(**values)


def _unbroken(sentence: str) -> str:
    """Return a sentence whose p-values stand on one line."""
    return re.sub(r"\bp ([=<]) ", "p\u00a0\\1\u00a0", sentence)


def _parts(cell: str) -> tuple[str, str]:
    """Divide the text of a cell into its value and what stands small below it.

    Examples:
        >>> _parts("0.965 (0.918 to 0.986)"), _parts("12")
        (('0.965', '(0.918 to 0.986)'), ('12', ''))
    """
    match = _VALUE.fullmatch(str(cell))
    return (str(cell), "") if match is None else (match[1], match[2] + (match[3] or ""))


def _counts(answer: Answer) -> str:
    """Return the numbers of test images, patients and positives behind the answer."""
    counts = answer.counts
    patients = ""
    if "patients" in counts and answer.unit != "patient":
        patients = f" of {counted(counts['patients'], 'patient')}"
    return f"{counts['images']:,} test {answer.units}{patients}, {counts['positive']:,} positive"


def _first_lines(
    result: ResultTables, matrices: Mapping[str, Mapping[str, int]], single: Sequence[str]
) -> list[str]:
    """Return where each system fails, whether all together are better, and where each points."""
    answer, lines = result.answer, []
    known = [name for name in single if name in matrices]
    if of_lesions := _found_lesions(result, single):
        lines.append(of_lesions)
    elif known and len(known) <= _MOST_NAMED:
        of = matrices[known[0]]
        n_positive, n_negative = of["tp"] + of["fn"], of["tn"] + of["fp"]
        missed = listing([f"{name} misses {matrices[name]['fn']:,}" for name in known])
        alarms = [matrices[name]["fp"] for name in known]
        kind = "is a false alarm" if alarms == [1] else "are false alarms"
        lines.append(
            f"Of {n_positive:,} positive {answer.units}, {missed}; of {n_negative:,} negative "
            f"{answer.units}, {listing([f'{count:,}' for count in alarms])} {kind}."
        )
    return [*lines, *filter(None, [answer.both_line(single)]), *answer.findings]


def _found_lesions(result: ResultTables, single: Sequence[str]) -> str:
    """Return how many lesions each system finds, as a primary figure of boxes counts them.

    AP counts false boxes, too: all that match no lesion. Empty for another figure.
    """
    metric = result.answer.primary[0]
    rows = result.lesions[result.lesions["topic"].isin([ERRORS, ALL_LESIONS])]
    counts = rows.pivot(index="system", columns="metric", values="count").astype(int)
    known = [name for name in single if name in counts.index]
    if METRICS[metric].needs != "boxes" or not known or len(known) > _MOST_NAMED:
        return ""
    n_lesions = int(rows.loc[rows["topic"] == ALL_LESIONS, "of"].iloc[0])
    by_froc = metric in FROC
    found = counts["lesion_recall" if by_froc else "found_iou_50"][known]
    each = [f"{name} {count:,}" for name, count in found.items()]
    each[0] = f"{known[0]} finds {found.iloc[0]:,}"
    text = f"Of {counted(n_lesions, 'lesion')}, {listing(each)} at the threshold"
    if by_froc:
        return f"{text} (IoU of 0.2)."
    false = counts.loc[known, ["poor_box_iou_50", "duplicate_iou_50", "background_iou_50"]]
    of_each = listing([f"{count:,}" for count in false.sum(axis=1)])
    return f"{text} (IoU of 0.5); false boxes: {of_each}."


def _untested_places(figures: pd.DataFrame, single: Sequence[str]) -> list[str]:
    """Return why it was not tested whether systems point at lesions better than one place does."""
    pairs = {name: image_blind_name(name) for name in single}
    rows = figures[figures["metric"].eq("pointing_accuracy") & figures["p_value"].isna()]
    rows = rows[rows["second"].eq(rows["first"].map(pairs)) & rows["note"].ne("")]
    return [
        f"The pointing of {listing([*of['first']])} at lesions was not tested against one place "
        f"for all images (image-blind baseline): {note}."
        for note, of in rows.groupby("note", sort=False)
    ]


def _no_threshold(figures: pd.DataFrame, answer: Answer) -> str:
    """Return why no system has a threshold."""
    rows = figures[figures["metric"].eq("accuracy") & figures["estimate"].isna()]
    return "; ".join(dict.fromkeys(rows.loc[rows["first"].isin(answer.systems), "note"]))


def _methods(figures: pd.DataFrame) -> dict[str, list[str]]:
    """Return the titles of the figures of systems whose interval each method gives."""
    rows = figures[figures["ci_low"].notna() & (figures["second"] == "")]
    return {
        str(method): list(dict.fromkeys(map(metric_title, of["metric"])))
        for method, of in rows.groupby("method")
    }


def _effective_patients(result: ResultTables) -> float | None:
    """Return what the rarer class is worth in patients with one image each; None if unknown."""
    rows = result.figures[result.figures["metric"] == "auroc"]
    known = rows["effective_patients"].dropna()
    return float(known.iloc[0]) if len(known) and "patients" in result.answer.counts else None


def _of(claims: Sequence[Mapping[str, Any]], *families: str) -> list[Mapping[str, Any]]:
    return [claim for claim in claims if claim["family"] in families]


def _undefined(result: ResultTables, main: pd.DataFrame) -> Iterator[str]:
    """Yield why usual figures of systems are undefined; of places only if some system has them."""
    rows = result.figures
    of = rows["first"].isin(result.answer.systems) & (rows["second"] == "")
    of &= rows["estimate"].isna() & rows["metric"].isin(metrics_of("main"))
    of &= rows["policy"].isin(["", result.answer.policy])
    of &= rows["metric"].map(lambda name: not METRICS[name].boxed or metric_title(name) in main)
    for note, same in rows[of].groupby("note", sort=False):
        lacking: dict[tuple[str, ...], list[str]] = {}
        for system, of_system in same.groupby("first", sort=False):
            titles = tuple(dict.fromkeys(map(metric_title, of_system["metric"])))
            lacking.setdefault(titles, []).append(str(system))
        for titles, systems in lacking.items():
            yield f"{', '.join(titles)} of {', '.join(systems)}: {note}."


def _too_high(result: ResultTables, table: pd.DataFrame) -> Iterator[str]:
    """Yield which figures of a table are too high on average, as few images are positive."""
    rows = result.figures
    of = rows["first"].isin(result.answer.systems) & (rows["second"] == "")
    of &= rows["metric"].map(lambda name: METRICS[name].averages_precision and METRICS[name].boxed)
    of &= rows["estimate"] > 0
    biased = rows[of & rows["n_positive"].map(too_high).ne("")]
    titles = [
        title for title in dict.fromkeys(map(metric_title, biased["metric"])) if title in table
    ]
    if titles:
        n_positive = int(biased["n_positive"].min())
        named = " and ".join(titles)
        yield (
            f"{named}: {too_high(n_positive)} ({n_positive:,}). Measured for AP50: by 0.04 to 0.05 "
            "with 18, by 0.01 with 180."
        )


def _draw_cases(
    result: ResultTables, out: Path, progress: Callable[..., None] | None
) -> tuple[list[Case], dict[str, str], dict[tuple[str, str], str]]:
    """Draw the selected cases as PNG files and for the page; one without a file is left out.

    Returned are, too, the file of each drawing, and the addresses of the images in cells of the
    confusion matrices on the page of these drawings.
    """
    if result.images is None or not result.answer.policy:
        return [], {}, {}
    make_folder(out / files.OVERLAYS)
    cases: list[Case] = []
    drawn: dict[str, str] = {}
    titles: dict[str, str] = {}
    overlays: list[Overlay] = []
    chosen = result.cases()
    for place, row in enumerate(chosen.to_dict("records"), start=1):
        image_id = row["image_id"]
        title = f"image-{place}" if result.answer.numbers_for_ids else image_id
        try:
            panels = result.images.panels(image_id, title=title, systems=result.shown)
        except InputError:
            continue
        drawn[title], titles[image_id] = f"{place:02d}.png", title
        with atomic_path(out / files.OVERLAYS / drawn[title]) as path:
            result.images.sheet(panels).save(path, "png")
        together = _shown(result.images.together(image_id, 2 * _SIDE, result.shown))
        total = f"{counted(row['of'], 'image')} in the test set"
        if n_boxed := row["n_boxed"]:
            of_boxed = "" if n_boxed == row["of"] else f" of the {n_boxed:,} with boxes"
            total += f",{of_boxed} {row['on_lesion']:,} on the lesion"
        shown = [_shown(panel) for panel in panels]
        cases.append(Case(row["kind"], total, title, shown, together))
        thumbnail = thumbnail_of(panels[0].pixels)
        overlays.append(Overlay(title, title, drawn[title], lines_of(panels), thumbnail))
        if progress is not None:
            progress()
    if not overlays:
        return cases, drawn, {}
    kinds = [each.named(titles) for each in result.images.kinds()]
    write_overlay_page(
        out / files.OVERLAYS,
        result.answer.title,
        overlays,
        kinds,
        total=result.answer.counts["images"],
        report=out / files.PAGE,
        remark="The cases of the report; cxr overlay draws more of each kind.",
    )
    return cases, drawn, _links_of_cells(result.answer, kinds)


def _links_of_cells(answer: Answer, kinds: Sequence[ImageKind]) -> dict[tuple[str, str], str]:
    """Return the address of the drawn images in a cell of a confusion matrix, where there are any.

    A cell is a system with ``fn`` or ``fp``.
    """
    drawn = {kind.key for kind in kinds if any(kind.image_ids)}
    cells = {(name, "fn"): missed_key(name) for name in answer.single}
    cells |= {(name, "fp"): false_alarm_key(name) for name in answer.single}
    page = f"{files.OVERLAYS}/{OVERLAYS_PAGE}"
    return {cell: f"{page}#kind={quote(key)}" for cell, key in cells.items() if key in drawn}


def _examples(kinds: dict[str, list[Case]], missed: str) -> list[Case]:
    """Return the first case of three kinds: what one system finds alone, and what all miss."""
    names = list(kinds)
    chosen = [*names[: _EXAMPLES - 1], *(name for name in names if name == missed), *names]
    return [kinds[name][0] for name in list(dict.fromkeys(chosen))[:_EXAMPLES]]


def _shown(panel: Panel) -> dict[str, Any]:
    """Return a panel for the page: its name, its lines, the ``src`` of its picture, its marks."""
    source = picture_source(panel.pixels, _SIDE, _QUALITY)
    lines = [line for line in panel.lines if line]
    return {"name": panel.name, "lines": lines, "src": source, "marks": panel.marks}


def _marks(panels: Iterable[Mapping[str, Any]]) -> set[str]:
    return {mark for panel in panels for mark in panel["marks"]}
