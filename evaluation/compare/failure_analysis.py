"""Failure analysis: groups of images, kinds of error and kinds of lesion, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import FIELD_WIDTH_MM
from cxr_compare.evaluation.boxes.error_types import count_error_types
from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.matching import BoxPairs
from cxr_compare.evaluation.compare.evaluated_models import Models, scorecards_of
from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.compare.paired_tests import seed_parts
from cxr_compare.evaluation.compare.prevalence import Prevalence
from cxr_compare.evaluation.compare.protocol import Protocol
from cxr_compare.evaluation.compare.scorecard import Scorecard, Scorecards, evaluation_set_of
from cxr_compare.evaluation.compare.shares import FAILURE_COLUMNS, FEW, ShareName, Shares
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT, SHORTCUT, measure_shortcuts
from cxr_compare.evaluation.compare.validation_to_test import validation_to_test
from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet, GroundTruth
from cxr_compare.evaluation.decisions.subgroups import Groups, image_groups
from cxr_compare.evaluation.metrics.net_benefit import benefits
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_over_seeds,
    auroc_parts,
)
from cxr_compare.evaluation.statistics.patient_exchange import ExchangedPatients

SIZE_EDGES_MM = (30.0, 60.0)
_SIZE_NAMES_MM = ("up to 30 mm", "30 to 60 mm", "over 60 mm")
SIZE_EDGES = (0.02, 0.06)
_SIZE_NAMES = ("up to 2 % of the image", "2 to 6 % of the image", "over 6 % of the image")
_SHORTCUT_METHOD = "Obuchowski 1997, clustered by patient; five folds of patients"
_LEFT_OUT = "siblings"
_WHOLE_IMAGE = "picture"
"""Kind of facts of the whole image, which disease changes, too."""
RISKS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
"""Risks from which a user would act, at which the decision curve is computed."""
COST_SHARES = tuple(round(0.1 * step, 1) for step in range(11))
"""Share of the cost that missed positives would cause if every image were wrong."""
TREAT_ALL = "call every image positive"


def lesion_groups(pairs: BoxPairs, images: pd.DataFrame) -> dict[str, Groups]:
    """Group true lesions by size, number in the image, position and view.

    Args:
        pairs: Predicted with true boxes.
        images: Images table in the order of the pairs' images; sizes in px, spacing in mm.

    Returns:
        The group of each lesion by topic, shape ``(lesions,)``, "" where it is unknown. Topics in
        which all lesions are of one group are left out.
    """
    corners = pairs.truth.corners
    image = pairs.truth.image
    sides = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    height, width = (_numbers(images, name)[image] for name in ("height", "width"))
    share = sides.prod(axis=1) / (height * width)
    count = pairs.truth.per_image[image]
    groups_of: dict[str, Groups] = {
        "lesion_size": _cut(share, SIZE_EDGES, _SIZE_NAMES),
        "lesion_count": np.array(["1", "2", "3 or more"], dtype=object)[np.minimum(count, 3) - 1],
        "third": _cut(centre[:, 1] / height, (1 / 3, 2 / 3), ("upper", "middle", "lower")),
        "side": _cut(centre[:, 0] / width, (0.5,), ("left of the image", "right of the image")),
    }
    spacing = trusted_spacing(images)[image]
    if not np.isnan(spacing).all():
        millimetres = np.sqrt((sides * spacing).prod(axis=1))
        sizes = _cut(millimetres, SIZE_EDGES_MM, _SIZE_NAMES_MM)
        groups_of["lesion_size_mm"] = np.where(np.isnan(millimetres), "", sizes)
    if "view" in images:
        views = images["view"].astype(object)
        groups_of["view"] = views.where(views.notna(), "").to_numpy(object)[image]
    return {topic: groups for topic, groups in groups_of.items() if len(set(groups) - {""}) > 1}


def trusted_spacing(images: pd.DataFrame) -> Floats:
    """Return the pixel spacing of each image in mm (column, row), NaN where it cannot be right."""
    names = ["spacing_col_mm", "spacing_row_mm"]
    if not set(names) <= set(images):
        return np.full((len(images), 2), np.nan)
    spacing = images[names].astype("float64").to_numpy(np.float64)
    field = spacing[:, 0] * _numbers(images, "width")
    wrong = ~((field >= FIELD_WIDTH_MM[0]) & (field <= FIELD_WIDTH_MM[1]))
    return np.where(wrong[:, None], np.nan, spacing)


def _numbers(images: pd.DataFrame, name: str) -> Floats:
    """Return a column of the images as numbers, NaN where it is unknown or not there."""
    if name not in images:
        return np.full(len(images), np.nan)
    return images[name].to_numpy(np.float64, na_value=np.nan)


def _cut(values: Floats, edges: Sequence[float], names: Sequence[str]) -> Groups:
    """Return the name of the interval that each value lies in; "" where it is unknown."""
    groups = np.array(names, dtype=object)[np.digitize(values, edges, right=True)]
    return np.where(np.isnan(values), "", groups).astype(object)


def _images_of(evaluated: EvaluationSet, images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the images table in the order of the evaluated images."""
    rows = images.drop_duplicates("image_id").set_index("image_id")
    return rows.reindex(evaluated.image_ids).reset_index()


_Rows = npt.NDArray[np.bool_]


class _GroupRows(NamedTuple):
    """Rows of a group, and the rows of all other groups, shape ``(N,)``."""

    name: str
    inside: _Rows
    outside: _Rows


def _split_groups(groups: Groups) -> Iterator[_GroupRows]:
    for name in sorted(set(groups) - {""}):
        inside = groups == name
        yield _GroupRows(name, inside, ~inside & (groups != ""))


def with_tests(
    table: pd.DataFrame, scorecards: Scorecards, groups: Mapping[str, Groups], policy: str
) -> pd.DataFrame:
    """Replace p-values of gaps with few patients by permutation, and add Holm's over all.

    With several training seeds, which are random, too, the larger p-value counts.
    """
    is_gap = table["p_value"].notna()
    has_seeds = max(map(len, scorecards.values())) > 1
    for topic, group_of_image in groups.items():
        for group in _split_groups(group_of_image):
            rows = is_gap & (table["topic"] == topic) & (table["group"] == f"{group.name} - rest")
            if not rows.any():
                continue
            permuted = permuted_p_values(scorecards, policy, group.inside, group.outside)
            p_values = [
                permuted.get((row["metric"], row["system"]), row["p_value"])
                for _, row in table[rows].iterrows()
            ]
            if has_seeds:
                table.loc[rows, "p_value"] = np.maximum(p_values, table["p_value"][rows])
            else:
                table.loc[rows, "p_value"] = p_values
    table.loc[is_gap, "p_holm"] = holm(table.loc[is_gap, "p_value"].tolist())
    return table


def permuted_p_values(
    scorecards: Scorecards, policy: str, inside: _Rows, outside: _Rows
) -> dict[tuple[str, str], float]:
    """Compute permutation p-values of gaps between a group and the rest, for few patients.

    A p-value is computed for a figure only if the group, or the rest, has fewer than `FEW` patients
    whose images the figure uses: positive images for sensitivity, negative images for specificity,
    and both for AUROC. Thresholds stay fixed.

    Args:
        scorecards: Scorecards of each system.
        policy: Threshold policy.
        inside: True for images of the group, shape ``(N,)``.
        outside: True for images of the rest, shape ``(N,)``.

    Returns:
        P-values by metric and system, or ``FIRST - OTHER`` for differences.
    """
    evaluated = evaluation_set_of(scorecards)
    p_values: dict[tuple[str, str], float] = {}
    truth = evaluated.y_true
    patients = evaluated.patients
    known = inside | outside
    figures = {name: _figures_of_images(members, policy) for name, members in scorecards.items()}
    images = {metric: of for each in figures.values() for metric, (_, of, _) in each.items()}
    for metric, of in {"auroc": np.ones_like(truth), **images}.items():
        classes = [own for own in (of & known & truth, of & known & ~truth) if own.any()]
        sides = [patients[side & own] for side in (inside, outside) for own in classes]
        if not 0 < min((len(np.unique(side)) for side in sides), default=0) < FEW:
            continue
        rows = np.flatnonzero(of & known)
        side = inside[rows] ^ (inside[rows].mean() > 0.5)  # the smaller takes less time
        exchanged = ExchangedPatients(side, truth[rows], patients[rows])
        gaps = {
            name: [exchanged.auroc_gap(scorecard.scores[rows]) for scorecard in members]
            if metric == "auroc"
            else [partial(exchanged.share_gap, figures[name][metric][0][rows])]
            for name, members in scorecards.items()
            if metric == "auroc" or metric in figures[name]
        }
        p_values |= {(metric, name): p for name, p in exchanged.p_values(gaps).items()}
    return p_values


def _add_combined_auroc(shares: Shares, scorecards: Scorecards) -> None:
    """Add the AUROC of the mean probability of two systems, and what it gains over each of them."""
    evaluated = evaluation_set_of(scorecards)
    name = ShareName("combined", "", "", "auroc")

    def parts_of(scores: Floats) -> AurocParts | None:
        return auroc_parts(evaluated.y_true, scores, evaluated.patients, evaluated.n_patients)

    for pair in combinations(scorecards, 2):
        one, two = (scorecards[system][0].probability for system in pair)
        joined = None if one is None or two is None else parts_of((one + two) / 2)
        if joined is None:
            continue
        both = f"mean of {pair[0]} and {pair[1]}"
        shares.add_auroc(both, name, joined.estimate(), joined)
        for system in pair:
            alone = parts_of(scorecards[system][0].scores)
            if alone is not None:
                gain = joined - alone
                shares.add_auroc(f"{both} - {system}", name, gain.estimate(), gain)


_PER_IMAGE = ("poor_box", "duplicate", "background")
_PER_LESION = ("found", "poorly_boxed", "missed")


def failure_table(
    models: Models,
    truth: GroundTruth,
    protocol: Protocol,
    prevalence: Prevalence | None,
    resamples: Resamples,
) -> pd.DataFrame:
    """Tabulate in which groups and ways each system fails, with the shortcut baseline.

    Args:
        models: Models of each system.
        truth: Ground truth.
        protocol: The question, which names subgroups.
        prevalence: Prevalence at the place of use; `None` without.
        resamples: Number and seed of the resamples.

    Returns:
        Rows with the columns of `FAILURE_COLUMNS`.
    """
    scorecards = scorecards_of(models)
    evaluated = evaluation_set_of(scorecards)
    policy = protocol.main_policy(list(next(iter(scorecards.values()))[0].thresholds))
    rows = _images_of(evaluated, truth.images)
    groups = image_groups(rows, protocol.subgroups)
    shares = Shares.from_scorecards(scorecards, policy, resamples, set(groups))
    add_groups(shares, scorecards, groups, policy)
    for name, members in scorecards.items():
        for share in _shares_of_lesions(members, rows):
            shares.add(name, *share)
        _add_net_benefit(shares, name, members)
    _add_agreement(shares, scorecards, policy)
    add_at_prevalence(shares, scorecards, policy, prevalence)
    _add_combined_auroc(shares, scorecards)
    tables = [
        with_tests(shares.table(list(scorecards), resamples), scorecards, groups, policy),
        _shortcut_rows(truth, evaluated, scorecards),
        validation_to_test(scorecards, resamples.seed),
    ]
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=list(FAILURE_COLUMNS))
    return pd.concat(filled, ignore_index=True)[list(FAILURE_COLUMNS)]


_Share = tuple[ShareName, npt.ArrayLike, npt.ArrayLike, npt.NDArray[np.int64], npt.ArrayLike | None]
"""Arguments of `Shares.add` after the system."""


def _figures_of_images(
    scorecards: Sequence[Scorecard], policy: str
) -> dict[str, tuple[Floats, _Rows, Floats | None]]:
    """Return figures at a policy: for each image its value, if it counts, and what a call adds."""
    evaluated = scorecards[0].evaluated
    calls = [called for scorecard in scorecards if (called := scorecard.called(policy)) is not None]
    if len(calls) < len(scorecards):
        return {}
    positive = np.mean(calls, axis=0)  # over seeds
    ones = np.ones(len(positive))
    figures: dict[str, tuple[Floats, _Rows, Floats | None]] = {
        "recall": (positive, evaluated.y_true, ones),
        "specificity": (1 - positive, ~evaluated.y_true, -ones),
    }
    on_lesion = [scorecard.localised for scorecard in scorecards if scorecard.localised is not None]
    if len(on_lesion) == len(scorecards):
        hits = [called & hit for called, hit in zip(calls, on_lesion, strict=True)]
        # Only of one seed does a call add a fixed share: the points of seeds differ.
        per_call = on_lesion[0].astype(np.float64) if len(scorecards) == 1 else None
        boxed = evaluated.y_true & evaluated.boxes_trusted
        figures["localised_sensitivity"] = (np.mean(hits, axis=0), boxed, per_call)
    return figures


def add_groups(
    shares: Shares, scorecards: Scorecards, groups: Mapping[str, Groups], policy: str
) -> None:
    """Add the figures of every group and of all others; of two groups the first has the others."""
    for name, members in scorecards.items():
        figures = _figures_of_images(members, policy)
        patients = members[0].evaluated.patients
        for topic, group_of_image in groups.items():
            named = list(_split_groups(group_of_image))
            sides = [(group.name, group.inside) for group in named]
            compared = named[:-1] if len(named) == 2 else named
            sides += [(f"not {group.name}", group.outside) for group in compared]
            for group, chosen in sides:
                for metric, (value, of, per_call) in figures.items():
                    mask = of & chosen
                    added = None if per_call is None else per_call * mask
                    key = ShareName(topic, group, policy, metric)
                    shares.add(name, key, value * mask, mask, patients, added)
                parts = seed_parts(members, chosen)
                if parts is not None:
                    key = ShareName(topic, group, "", "auroc")
                    shares.add_auroc(name, key, auroc_over_seeds(parts), AurocParts.mean(parts))


def _shares_of_lesions(members: Sequence[Scorecard], rows: pd.DataFrame) -> Iterator[_Share]:
    """Yield kinds of error, and lesions reached by kind of lesion, means over seeds."""
    evaluated = members[0].evaluated
    matched = [
        (scorecard.pairs, scorecard.box_cut)
        for scorecard in members
        if scorecard.pairs is not None and scorecard.box_cut is not None
    ]
    if len(matched) < len(members) or not matched[0][0].truth.per_image.sum():
        return
    patients = evaluated.patients[evaluated.boxes_trusted]
    kinds = [count_error_types(pairs, cut) for pairs, cut in matched]
    mean = {kind: np.mean([of_seed[kind] for of_seed in kinds], axis=0) for kind in kinds[0]}
    ones = np.ones(len(patients))
    for kind in (*_PER_LESION, *_PER_IMAGE):
        of = mean["lesions"] if kind in _PER_LESION else ones
        yield ShareName("errors", "", "", kind), mean[kind], of, patients, None
    reached = np.mean(
        [is_positive(find_lesions(pairs).best, cut) for pairs, cut in matched], axis=0
    )
    pairs = matched[0][0]
    trusted = rows[evaluated.boxes_trusted].reset_index(drop=True)
    for topic, of_lesion in lesion_groups(pairs, trusted).items():
        for group, chosen, _ in _split_groups(of_lesion):
            key = ShareName(f"lesions by {topic}", group, "", "lesion_recall")
            yield key, reached * chosen, chosen, patients[pairs.truth.image], None


def _shortcut_rows(
    truth: GroundTruth, evaluated: EvaluationSet, scorecards: Scorecards
) -> pd.DataFrame:
    """Guess the label of the evaluated images from view, sex, age, file, grey level and edge alone.

    Each guess is learned on four fifths of these images' patients and evaluated on the rest, in
    turn. A system that does not beat the guess has not shown that it reads the lungs.
    """
    images = _images_of(evaluated, truth.images)
    positive = evaluated.y_true.astype(np.float64)
    labels = pd.DataFrame({truth.finding: positive}, index=evaluated.image_ids)
    systems = {
        name: [scorecard.scores for scorecard in members] for name, members in scorecards.items()
    }
    guesses = [
        row
        for row in measure_shortcuts(images, truth.facts, labels, systems=systems)
        if row["kind"] != _LEFT_OUT
    ]

    def row_of(
        guess: Mapping[str, Any],
        topic: str,
        system: str,
        estimate: float,
        ends: tuple[float | None, float | None],
        note: str,
    ) -> dict[str, Any]:
        return {
            "topic": topic,
            "group": guess["fact"],
            "system": system,
            "policy": "",
            "metric": "auroc",
            "estimate": estimate,
            "ci_low": ends[0],
            "ci_high": ends[1],
            "ci_method": _SHORTCUT_METHOD if ends[0] is not None else "",
            "count": guess["n_positive"],
            "of": guess["n_images"],
            "n_patients": evaluated.n_patients,
            "note": note,
        }

    rows = []
    for guess in guesses:
        ends = (guess["ci_low"], guess["ci_high"])
        known = f"known of {guess['n_known']} images"
        rows.append(row_of(guess, SHORTCUT, SHORTCUT, guess["auroc"], ends, known))
    compared = [row for row in guesses if "beyond" in row and row["kind"] != _WHOLE_IMAGE]
    for name, gap in compared[0]["beyond"].items() if compared else ():  # the strongest is first
        ends = gap.interval or (None, None)
        note = "over pairs of images in one fold"
        rows.append(row_of(compared[0], BEYOND_SHORTCUT, name, gap.value, ends, note))
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


def cohen_kappa(
    both: npt.ArrayLike, only_first: npt.ArrayLike, only_second: npt.ArrayLike, n: npt.ArrayLike
) -> Floats:
    """Compute Cohen's kappa of the calls of two systems.

    Args:
        both: Images called positive by both, counts or shares.
        only_first: Images called positive by the first only.
        only_second: Images called positive by the second only.
        n: All images.

    Returns:
        Kappa, NaN where chance alone agrees on everything.

    Example:
        >>> float(cohen_kappa(5, 0, 0, 10))
        1.0

    Source:
        Cohen 1960.
    """
    a, b, c, total = (np.asarray(x, np.float64) for x in (both, only_first, only_second, n))
    with np.errstate(invalid="ignore", divide="ignore"):
        first = (a + b) / total
        second = (a + c) / total
        observed = 1 - (b + c) / total
        chance = first * second + (1 - first) * (1 - second)
        return np.asarray((observed - chance) / np.where(chance < 1, 1 - chance, np.nan))


def _add_agreement(shares: Shares, scorecards: Scorecards, policy: str) -> None:
    """Add the agreement of every pair of systems, with the first seed of each.

    Images that both, one or none gets right (topic ``right_wrong``; all images, positive ones,
    negative ones), Cohen's kappa of the calls (topic ``agreement``), and sensitivity and
    specificity if an image were called positive by either or by both (topic ``combined``).
    """
    evaluated = evaluation_set_of(scorecards)
    truth = evaluated.y_true
    patients = evaluated.patients
    everything = np.ones(len(truth), dtype=bool)
    populations = {"all": everything, "positive": truth, "negative": ~truth}
    for first, second in combinations(scorecards, 2):
        one, two = (scorecards[name][0].called(policy) for name in (first, second))
        if one is None or two is None:
            continue
        pair = f"{first} & {second}"
        right = one == truth, two == truth
        cells = {
            "both_right": right[0] & right[1],
            "only_first_right": right[0] & ~right[1],
            "only_second_right": ~right[0] & right[1],
            "both_wrong": ~right[0] & ~right[1],
        }
        for group, of in populations.items():
            for metric, cell in cells.items():
                key = ShareName("right_wrong", group, policy, metric)
                shares.add(pair, key, cell & of, of, patients)
        needed = []
        for metric, cell in (("both", one & two), ("first", one & ~two), ("second", ~one & two)):
            key = ShareName("", "", policy, f"called by {metric}")
            shares.add(pair, key, cell, everything, patients)
            needed.append((pair, key))
        named = (pair, ShareName("agreement", "", policy, "kappa"))
        shares.derive(named, needed, partial(cohen_kappa, n=1.0))
        for words, joined in (("or", one | two), ("and", one & two)):
            hits = {"recall": (joined, truth), "specificity": (~joined, ~truth)}
            for metric, (hit, of) in hits.items():
                key = ShareName("combined", "", policy, metric)
                shares.add(f"{first} {words} {second}", key, hit & of, of, patients)


def _add_net_benefit(shares: Shares, name: str, members: Sequence[Scorecard]) -> None:
    """Add the decision curve of a system, and that of calling every image positive."""
    evaluated = members[0].evaluated
    ones = np.ones(len(evaluated.y_true))
    calibrated = [
        scorecard.probability for scorecard in members if scorecard.probability is not None
    ]
    kinds = {"net_benefit": [scorecard.scores for scorecard in members]}
    if len(calibrated) == len(members):
        kinds["net_benefit_calibrated"] = calibrated
    for risk in RISKS:
        for metric, of_seeds in kinds.items():
            worth = np.mean([benefits(evaluated.y_true, p, risk) for p in of_seeds], axis=0)
            key = ShareName("decision_curve", f"{risk:g}", "", metric)
            shares.add(name, key, worth, ones, evaluated.patients)
        every = benefits(evaluated.y_true, ones, risk)
        key = ShareName("decision_curve", f"{risk:g}", "", "net_benefit")
        shares.add(TREAT_ALL, key, every, ones, evaluated.patients)


def predictive_values(
    recall: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike
) -> dict[str, Floats]:
    """Compute PPV and NPV at a prevalence, if sensitivity and specificity hold there.

    Args:
        recall: Sensitivity.
        specificity: Specificity.
        prevalence: Share of positives.

    Source:
        Bayes' rule.
    """
    hit, kept, ill = (np.asarray(x, np.float64) for x in (recall, specificity, prevalence))
    well = 1 - ill
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ppv": hit * ill / (hit * ill + (1 - kept) * well),
            "npv": kept * well / (kept * well + (1 - hit) * ill),
        }


def add_at_prevalence(
    shares: Shares, scorecards: Scorecards, policy: str, prevalence: Prevalence | None
) -> None:
    """Add PPV and NPV at the user's prevalence, and the cost curve, of each system.

    Source:
        Drummond and Holte 2006, cost curves.
    """
    for name, members in scorecards.items():
        calls = [
            called for scorecard in members if (called := scorecard.called(policy)) is not None
        ]
        if len(calls) < len(members):
            continue
        evaluated = members[0].evaluated
        called = np.mean(calls, axis=0)
        needed = []
        for metric, value, of, per_call in (
            ("recall", called, evaluated.y_true, 1),
            ("specificity", 1 - called, ~evaluated.y_true, -1),
        ):
            key = ShareName("", "", policy, metric)
            shares.add(name, key, value * of, of, evaluated.patients, per_call * of)
            needed.append((name, key))
        for cost_share in COST_SHARES:
            key = ShareName("cost_curve", f"{cost_share:g}", policy, "expected_cost")
            shares.derive((name, key), needed, partial(_cost, cost_share))
        if prevalence is None:
            continue
        for metric in ("ppv", "npv"):
            key = ShareName("prevalence", prevalence.text, policy, metric)
            shares.derive((name, key), needed, partial(_predictive, metric, prevalence))


def _cost(cost_share: float, recall: Floats, specificity: Floats) -> Floats:
    return (1 - recall) * cost_share + (1 - specificity) * (1 - cost_share)


def _predictive(metric: str, prevalence: Prevalence, recall: Floats, specificity: Floats) -> Floats:
    return predictive_values(recall, specificity, prevalence.like(recall))[metric]
