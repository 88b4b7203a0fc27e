"""Sections of a report: one list of records, which page, terminal and files lay out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pandas as pd

from cxr_compare.evaluation.figures import too_high
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS, metric_title
from cxr_compare.evaluation.policies import threshold_text
from cxr_compare.evaluation.report import tables
from cxr_compare.evaluation.report.methods import (
    correction,
    counts_text,
    limits,
    methods_sentences,
)
from cxr_compare.evaluation.verdict.cautions import without_scores
from cxr_compare.evaluation.verdict.claims import NOT_EQUAL
from cxr_compare.evaluation.verdict.prose import listing

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import ReportAnswer
    from cxr_compare.evaluation.report.result import Result

MOST_COLUMNS = 8
"""Columns of the main table that stand on the page before a fold."""
_MOST_OPEN = 3
"""Systems up to which tables of errors are open."""
_OPEN_GROUPS = 2
"""Tables of groups that are open."""


@dataclass(frozen=True, eq=False)
class Section:
    """One table of a report with its sentences.

    Attributes:
        chapter: Part of the page in which it stands.
        title: Heading; empty for the first one of a chapter.
        rows: Values as `cells` reads them, with a named index; sentences alone without any.
        notes: Sentences below the rows.
        lead: Sentence above them.
        fold: Whether it is folded: ``always``, or on narrow screens only.
        linked: Names of rows that open the report in the folder of this name.
        marked: Names of rows with a dagger, which a note explains.
    """

    chapter: Literal["first", "figures", "where", "methods", "paper", "classes"]
    title: str
    rows: pd.DataFrame
    notes: Sequence[str] = ()
    lead: str = ""
    fold: Literal["", "narrow", "always"] = ""
    linked: Collection[str] = ()
    marked: Collection[str] = ()


def sections(result: Result) -> list[Section]:
    """Return the sections of a report in the order of the page, without those that are empty."""
    made = [*_first(result), *_figures(result), *_where(result), *_methods(result)]
    return [each for each in made if not each.rows.empty or (each.notes and not each.title)]


def paper_sections(result: Result) -> list[Section]:
    """Return the two tables for a paper: figures of the systems, and tested differences."""
    answer, metrics = result.answer, tables.paper_metrics(result)
    rows = tables.figure_cells(result, result.ordered, metrics)
    blind = {image_blind_name(name) for name in answer.systems}
    claims = [
        claim
        for claim in tables.shown_claims(result)
        if claim.metric in [*metrics, *answer.box_figures] and claim.tested
        if claim.second not in blind
    ]
    differences = tables.claim_table(claims, answer)
    if len(claims):
        differences = differences.drop(columns="Shown to be higher")
        differences = differences.reset_index().set_index("Difference")
    by = "patient" if "patients" in answer.counts else "image"
    caption = f"Figures with 95 % intervals by {by} on {counts_text(answer, of_them=' of them')}."
    if answer.policy:
        caption += f" An image is called positive at or above {threshold_text(answer.policy)}."
    of = "Differences between the systems with 95 % intervals and p-values."
    made = [Section("paper", caption, rows), Section("paper", of, differences)]
    return [each for each in made if not each.rows.empty]


def _first(result: Result) -> Iterator[Section]:
    """Yield what came of the images and lesions, which stands on the first screen."""
    answer, outcomes = result.answer, tables.outcome_table(result)
    by_score = [name for name in outcomes.index if answer.thresholds[name]]
    called = without_scores([name for name in outcomes.index if name not in by_score])
    if by_score:
        of = f" of {listing(by_score)}" if called else ""
        called.insert(0, f"Called: score{of} at or above the threshold.")
    yield Section("first", "", outcomes, called)
    if answer.box_figures:
        yield Section("first", "", tables.lesion_cells(result))


def _figures(result: Result) -> Iterator[Section]:
    """Yield figures of the systems, and the differences between them."""
    answer, main = result.answer, tables.main_table(result)
    before, further = main.iloc[:, :MOST_COLUMNS], main.iloc[:, MOST_COLUMNS:]
    blind = tables.image_blind_table(result)
    notes = [*answer.sentences[2 if answer.margin else 1 :]]
    if answer.joint and len(blind):
        notes.append(f"{answer.joint} has no boxes of its own, so no figures of places.")
    notes += [*_undefined(result, main), *_too_high(result, before)]
    yield Section("figures", "", before, notes, _lead(result))
    of_fold = [*_too_high(result, further)]
    yield Section("figures", "Further figures and thresholds", further, of_fold, fold="always")
    title = f"{answer.primary_title[:1].upper()}{answer.primary_title[1:]} by other image scores"
    rules = "Each column is a rule from boxes to the score of an image; nothing here is tested."
    yield Section("figures", title, tables.image_score_table(result), [rules], fold="narrow")
    costs = tables.cost_table(result)
    timed = "Time per image: that of one pass over all images on this machine, by their number."
    yield Section("figures", "Size and time of each system", costs, [timed], fold="always")
    yield Section(
        "figures",
        "The same figures if each system marked the same places in every image",
        blind,
        [
            "Places are fixed, scores those of the system: what it reaches without looking where "
            "the lesion is (image-blind baseline). Compare with these figures, not with 0."
        ],
        fold="narrow" if len(blind) <= _MOST_OPEN else "always",
    )
    yield from _differences(result)


def _lead(result: Result) -> str:
    answer, shown = result.answer, result.shown
    first = answer.primary_title
    parts = []
    if len(answer.systems) > 1:
        parts.append(f"All systems have the same {answer.units}; the highest {first} comes first.")
    parts.append("Intervals are 95 %.")
    if answer.ranks:
        parts.append(
            "Rank: the best and the worst place in the order of the systems that the tested "
            "differences allow."
        )
    if answer.policy and any(answer.thresholds.values()):
        parts.append(f"An image is called positive at or above {threshold_text(answer.policy)}.")
    if len(shown) < len(answer.systems):
        joint = f", {answer.joint}" if answer.joint else ""
        parts.append(
            f"Charts, X-rays and the tables below show {len(shown)} of the {len(answer.systems)}: "
            f"{answer.systems[0]}{joint} and those with the highest {first}. This table, the "
            "differences and the files beside the page have all."
        )
    return " ".join(parts)


def _differences(result: Result) -> Iterator[Section]:
    """Yield the differences of the answer, and further ones that are tested."""
    answer, claims = result.answer, tables.shown_claims(result)
    is_corrected = any(claim.corrected for claim in answer.claims)
    of_answer = [claim for claim in claims if claim.family in ("answer", "joint")]
    n_pairs = len(answer.primary_claims)
    notes = [_shown_text(answer, is_corrected=is_corrected)]
    if answer.joint:
        notes.append(
            f"{answer.joint} is shown to be better only if it exceeds each of its members."
        )
    if n_pairs > tables.MOST_SHOWN:
        notes.append(f"Of the {n_pairs} pairs those with the highest system are listed.")
    table = tables.claim_table(of_answer, answer)
    yield Section("figures", "Differences", table, [" ".join(notes)] if of_answer else ())
    further = [claim for claim in claims if claim.family in ("places", "further")]
    notes = [_resamples_text(answer)]
    if is_corrected:
        title = "AUROC" if METRICS[answer.primary[0]].of_places else answer.primary_title
        notes.append(
            f"A further figure of images is shown only where the {title} is, so its corrected p is "
            f"at least that of the {title} (docs/metrics.md#several-comparisons)."
        )
    yield Section(
        "figures",
        "Further differences that are tested",
        tables.claim_table(further, answer),
        [" ".join(notes)] if further else (),
        fold="narrow" if len(further) <= tables.MOST_SHOWN else "always",
    )


def _shown_text(answer: ReportAnswer, *, is_corrected: bool) -> str:
    """Return when a difference is shown, and over what its p-value is corrected."""
    after = " after correction" if is_corrected else ""
    text = f"A difference is shown if its p-value is below 0.05{after} and its interval excludes 0."
    return " ".join([text, NOT_EQUAL, "Differences are rounded last.", *correction(answer)])


def _resamples_text(answer: ReportAnswer) -> str:
    replicates = answer.provenance.replicates
    return f"A p-value by {replicates:,} resamples is at least {2 / (replicates + 1):.4g}."


def _undefined(result: Result, main: pd.DataFrame) -> Iterator[str]:
    """Yield why usual figures of systems are undefined; of places only if some system has them."""
    answer, rows = result.answer, result.of_systems
    of = rows["first"].isin(answer.systems)
    of &= rows["estimate"].isna() & rows["metric"].isin(tables.metrics_in(answer, "main"))
    of &= rows["policy"].isin(["", answer.policy])
    of &= rows["metric"].map(lambda name: not METRICS[name].boxed or metric_title(name) in main)
    for note, same in rows[of].groupby("note", sort=False):
        lacking: dict[tuple[str, ...], list[str]] = {}
        for system, of_system in same.groupby("first", sort=False):
            titles = tuple(dict.fromkeys(map(metric_title, of_system["metric"])))
            lacking.setdefault(titles, []).append(str(system))
        for titles, systems in lacking.items():
            yield f"{', '.join(titles)} of {', '.join(systems)}: {note}."


def _too_high(result: Result, table: pd.DataFrame) -> Iterator[str]:
    """Yield which figures of a table are too high on average, as few images are positive."""
    rows = result.of_systems
    of = rows["first"].isin(result.answer.systems) & (rows["estimate"] > 0)
    of &= rows["metric"].map(lambda name: METRICS[name].averages_precision and METRICS[name].boxed)
    biased = rows[of & rows["n_positive"].map(too_high).ne("")]
    titles = [
        title for title in dict.fromkeys(map(metric_title, biased["metric"])) if title in table
    ]
    if titles:
        n_positive = int(biased["n_positive"].min())
        yield (
            f"{' and '.join(titles)}: {too_high(n_positive)} ({n_positive:,}). In simulations AP50 "
            "was too high by 0.04 to 0.05 with 18 positive images, by 0.01 with 180."
        )


def _where(result: Result) -> Iterator[Section]:
    """Yield the errors of each system, and its figures in groups."""
    answer = result.answer
    if not result.confusion:
        text = "There is no threshold, so no image is called positive."
        yield Section("where", "", pd.DataFrame(), [text])
    of_few: Literal["narrow", "always"] = (
        "narrow" if len(answer.systems) <= _MOST_OPEN else "always"
    )
    box_errors = tables.box_error_table(result)
    of_maps = [name for name in box_errors if name in {*answer.single} - {*answer.with_boxes}]
    surround = [f"Boxes of {listing(of_maps)} surround what is high in heat maps."]
    yield Section(
        "where",
        "Kinds of errors of boxes",
        box_errors,
        [
            *(surround if of_maps else ()),
            "Boxes that are not below the threshold, each matched to one lesion at an IoU of 0.5. "
            "A lesion without a match is poorly boxed if it is the nearest one of a poor box, else "
            "missed. lesions.parquet has the intervals.",
        ],
        fold=of_few,
    )
    yield Section(
        "where",
        "Errors of one system on which another is right",
        tables.correction_table(result),
        fold=of_few,
    )
    groups = list(tables.group_tables(result))
    for place, (title, table) in enumerate(groups):
        is_open = place < _OPEN_GROUPS and len(answer.single) <= tables.MOST_INTERVALS
        fold: Literal["narrow", "always"] = "narrow" if is_open else "always"
        yield Section("where", f"{title} by group", table, fold=fold)
    text = (
        "groups.parquet and lesions.parquet have all intervals. No group is tested against another."
    )
    if not groups:
        text = "Nothing is known by which images could be grouped."
    yield Section("where", "", pd.DataFrame(), [text])


def _methods(result: Result) -> Iterator[Section]:
    """Yield methods and limits as sentences, and how trainings differ."""
    texts = [*methods_sentences(result.answer), *limits(result)]
    yield Section("methods", "", pd.DataFrame(), texts)
    records = result.answer.provenance.systems
    settings = tables.training_settings({name: records.get(name, {}) for name in result.shown})
    yield Section("methods", "Settings in which the trainings differ", settings, fold="always")
