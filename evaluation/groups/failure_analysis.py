"""Failure analysis: figures by group of images, kind of error and kind of lesion, with intervals.

The table also has the agreement of systems, and the prediction of the label from metadata and image
borders alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models, images_of
from cxr_compare.evaluation.figure_intervals import seed_parts
from cxr_compare.evaluation.groups.prevalence import Prevalence
from cxr_compare.evaluation.groups.resampled_shares import Drawn, draw_shares
from cxr_compare.evaluation.groups.shares import (
    FAILURE_COLUMNS,
    FEW,
    LESION_TOPIC,
    NONE_OF_THEM,
    ShareName,
    Shares,
)
from cxr_compare.evaluation.groups.shortcuts import BEYOND_SHORTCUT, SHORTCUT, measure_shortcuts
from cxr_compare.evaluation.groups.subgroups import Groups, image_groups
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.replicates import ChosenAgain
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_auroc import (
    AurocParts,
    auroc_over_seeds,
)
from cxr_compare.evaluation.statistics.clustered_counts import (
    function_over_seeds,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval
from cxr_compare.evaluation.threshold_figures import confusion, interval_of, share_parts
from cxr_compare.evaluation.thresholds import is_chosen

SIZE_EDGES_MM = (30.0, 60.0)
_SIZE_NAMES_MM = ("up to 30 mm", "30 to 60 mm", "over 60 mm")
_SHORTCUT_METHOD = "Obuchowski 1997, clustered by patient; five folds of patients"
_LEFT_OUT = "siblings"
_WHOLE_IMAGE = "picture"
"""Kind of facts about the whole image, such as its mean brightness, which disease changes too."""


def lesion_groups(pairs: BoxPairs, images: pd.DataFrame) -> dict[str, Groups]:
    """Group true lesions by size, number in the image, position and view (projection).

    The groupings are ``lesion_size`` (area as a share of the image, in thirds of these lesions),
    ``lesion_size_mm``, ``lesion_count`` (number of lesions in the image), ``third`` (upper, middle
    or lower third of the image), ``side`` (left or right half of the image) and ``view``; the name
    of a lesion's group is empty where it is unknown. A grouping is left out if all lesions are in
    one group, or if its columns are missing.

    The images have the order of those of `pairs`, with ``height`` and ``width`` in px and, where
    they are known, ``spacing_col_mm`` and ``spacing_row_mm`` (width and height of a pixel in mm)
    and ``view``, such as ``AP``.
    """
    corners = pairs.truth.corners
    image = pairs.truth.image
    sides = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    height, width = (_numbers(images, name)[image] for name in ("height", "width"))
    share = sides.prod(axis=1) / (height * width)
    count = pairs.truth.per_image[image]
    groups_of: dict[str, Groups] = {
        "lesion_size": _thirds_of_size(share),
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


def _thirds_of_size(share: Floats) -> Groups:
    """Return the third of all lesions, by share of the image, to which each lesion belongs."""
    known = share[~np.isnan(share)]
    if not len(known):
        return np.full(len(share), "", dtype=object)
    lower, upper = np.quantile(known, [1 / 3, 2 / 3])
    low, high = f"{100 * lower:.2g}", f"{100 * upper:.2g}"
    names = (
        f"up to {low} % of the image",
        f"{low} to {high} % of the image",
        f"over {high} % of the image",
    )
    return _cut(share, (lower, upper), names)


def trusted_spacing(images: pd.DataFrame) -> Floats:
    """Return width and height of a pixel in mm, ``(images, 2)``, if the image's width is plausible.

    Both are NaN where they are unknown, or where the width of the image is below 250 or above 500
    mm (`FIELD_WIDTH_MM`). The columns are ``width`` in px, ``spacing_col_mm`` and
    ``spacing_row_mm``.
    """
    names = ["spacing_col_mm", "spacing_row_mm"]
    if not set(names) <= set(images):
        return np.full((len(images), 2), np.nan)
    spacing = images[names].astype("float64").to_numpy(np.float64)
    field = spacing[:, 0] * _numbers(images, "width")
    wrong = ~((field >= FIELD_WIDTH_MM[0]) & (field <= FIELD_WIDTH_MM[1]))
    return np.where(wrong[:, None], np.nan, spacing)


def _numbers(images: pd.DataFrame, name: str) -> Floats:
    """Return a column of the table as numbers; NaN where a value or the whole column is missing."""
    if name not in images:
        return np.full(len(images), np.nan)
    return images[name].to_numpy(np.float64, na_value=np.nan)


def _cut(values: Floats, edges: Sequence[float], names: Sequence[str]) -> Groups:
    """Return the name of the range in which each value lies; an empty name for NaN."""
    groups = np.array(names, dtype=object)[np.digitize(values, edges, right=True)]
    return np.where(np.isnan(values), "", groups).astype(object)


_Rows = npt.NDArray[np.bool_]


class _GroupRows(NamedTuple):
    """Rows of a group, and rows of all other groups."""

    name: str
    inside: _Rows  # (N,), True for rows of the group
    outside: _Rows  # (N,), True for rows of other groups


def _split_groups(groups: Groups) -> Iterator[_GroupRows]:
    for name in sorted(set(groups) - {""}):
        inside = groups == name
        yield _GroupRows(name, inside, ~inside & (groups != ""))


def with_tests(
    table: pd.DataFrame, evaluated: LabelledImages, groups: Mapping[str, Groups]
) -> pd.DataFrame:
    """Complete the p-values of the gaps between groups of images, such as women and men.

    A gap is the difference in a figure between a group and the rest of the images. If the group or
    the rest has fewer than 30 patients with positive images, or with negative ones, its gaps have
    figures but no p-value, and so no claim is made about them. All other p-values are corrected
    together by Holm's method, in ``p_holm``.

    `table` is that of `Shares.table`, and is changed in place. `groups` has the group of each
    image, such as ``F``, by topic, such as ``sex``; empty where it is unknown.
    """
    for topic, group_of_image in groups.items():
        for group in _split_groups(group_of_image):
            if _has_few_patients(evaluated, group):
                rows = (table["topic"] == topic) & (table["group"] == f"{group.name} - rest")
                table.loc[rows, "p_value"] = np.nan
    tested = table["p_value"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p_value"].tolist())
    return table


def _has_few_patients(evaluated: LabelledImages, group: _GroupRows) -> bool:
    """Return True if the group or the rest has fewer than 30 patients of a class."""
    patients = [
        np.unique(evaluated.patients[side & of_class])
        for side in (group.inside, group.outside)
        for of_class in (evaluated.y_true, ~evaluated.y_true)
    ]
    return min(map(len, patients)) < FEW


_PER_IMAGE = ("poor_box", "duplicate", "background")
_PER_LESION = ("found", "poorly_boxed", "missed")


def failure_table(
    models: Models,
    again: ChosenAgain,
    protocol: Protocol,
    prevalence: Prevalence | None,
    resamples: Resamples,
    shortcut_rows: pd.DataFrame,
) -> pd.DataFrame:
    """Make the table of the failure analysis: where and how each system fails.

    It has the columns of `FAILURE_COLUMNS`, one row for each figure of a system or difference of
    two systems. Column ``topic`` names the grouping, such as ``sex``, or the subject, such as
    ``errors``, and column ``group`` the group of images in it, such as ``F``. ``policy`` is the
    rule for the threshold, and ``count`` and ``of`` are the numerator and denominator of a share.

    `again` comes from `choose_again`, `shortcut_rows` from `shortcut_table`; `prevalence` is None
    if it was not stated.
    """
    evaluated = images_of(models)
    first = next(iter(models.values()))[0]
    policy = protocol.main_policy(
        [name for name, choice in first.thresholds.items() if choice.threshold is not None]
    )
    rows = evaluated.images
    groups = image_groups(rows, protocol.subgroups)
    shares = Shares(evaluated.n_patients, set(groups))
    drawn: _DrawnShares = {}
    if len(models) > 1:
        drawn = draw_shares(models, policy, again, _masks(evaluated, groups), resamples)
    add_groups(shares, models, groups, policy, drawn)
    for name, members in models.items():
        for share in _shares_of_lesions(members, rows, policy):
            shares.add(name, *share)
    _add_right_wrong(shares, models, policy)
    if prevalence is not None:
        add_at_prevalence(shares, models, policy, prevalence, drawn)
    tables = [
        with_tests(shares.table(list(models)), evaluated, groups),
        shortcut_rows,
    ]
    filled = [table for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=list(FAILURE_COLUMNS))
    return pd.concat(filled, ignore_index=True)[list(FAILURE_COLUMNS)]


_Share = tuple[ShareName, npt.ArrayLike, npt.ArrayLike, npt.NDArray[np.int64]]
"""Arguments of `Shares.add` that follow the name of the system."""
_Group = tuple[str, str]
"""Topic and name of a group; both are empty for all images."""
_EVERYTHING = ("", "")
_DrawnShares = Mapping[tuple[str, _Group, str], Drawn]
"""Figures at the threshold on resamples, by system, group and metric."""


def _masks(evaluated: LabelledImages, groups: Mapping[str, Groups]) -> dict[_Group, _Rows]:
    """Return the images of every group, and all images."""
    masks: dict[_Group, _Rows] = {_EVERYTHING: np.ones(len(evaluated.y_true), dtype=bool)}
    for topic, group_of_image in groups.items():
        masks |= {(topic, group.name): group.inside for group in _split_groups(group_of_image)}
    return masks


def _metrics_of_groups(members: Sequence[EvaluatedModel], policy: str) -> list[str]:
    """Return the figures at a threshold that a system has in groups."""
    if any(model.called(policy) is None for model in members):
        return []
    metrics = ["recall", "specificity"]
    if all(model.localised is not None for model in members):
        metrics.append("localised_sensitivity")
    return metrics


def add_groups(
    shares: Shares,
    models: Models,
    groups: Mapping[str, Groups],
    policy: str,
    drawn: _DrawnShares | None = None,
) -> None:
    """Add sensitivity, specificity and AUROC of each group of images, and of the rest.

    If all training seeds of a system show positions in the image, the localised sensitivity (the
    share of positive images that are called positive and on whose lesion the system points) is
    added as well.

    The rest of a group is all images of other groups. If there are two groups, the rest is added
    for the first one only, because the second one is its rest. `groups` are those of `with_tests`.
    Differences of systems follow from `drawn`, figures on resamples, where it has them, else from
    both intervals.
    """
    drawn = drawn or {}
    for name, members in models.items():
        keys = [MetricKey(ALL, policy, metric) for metric in _metrics_of_groups(members, policy)]
        for topic, group_of_image in groups.items():
            named = list(_split_groups(group_of_image))
            sides = [(group.name, group.inside) for group in named]
            compared = named[:-1] if len(named) == 2 else named
            sides += [(f"not {group.name}", group.outside) for group in compared]
            for group, chosen in sides:
                for key in keys:
                    seeds = share_parts(members, key, chosen)
                    if seeds is not None:
                        of_group = drawn.get((name, (topic, group), key.metric))
                        share = ShareName(topic, group, policy, key.metric)
                        shares.add_parts(name, share, seeds, of_group)
                parts = seed_parts(members, chosen)
                if parts is not None:
                    auroc = ShareName(topic, group, "", "auroc")
                    shares.add_auroc(name, auroc, auroc_over_seeds(parts), AurocParts.mean(parts))


def _box_cut(model: EvaluatedModel, policy: str) -> float | None:
    """Return the score from which boxes count: chosen on validation, or a declared threshold."""
    if model.choices.box_cut is not None or is_chosen(policy) or policy not in model.thresholds:
        return model.choices.box_cut
    return model.thresholds[policy].threshold


def _shares_of_lesions(
    members: Sequence[EvaluatedModel], rows: pd.DataFrame, policy: str
) -> Iterator[_Share]:
    """Yield the shares of each kind of error, and of found lesions by kind of lesion.

    If there are several training seeds, the shares are means over them.
    """
    evaluated = members[0].images
    cuts = [(model.pairs, _box_cut(model, policy)) for model in members]
    matched = [(pairs, cut) for pairs, cut in cuts if pairs is not None and cut is not None]
    if len(matched) < len(members) or not matched[0][0].truth.per_image.sum():
        return
    patients = evaluated.patients[evaluated.is_boxed]
    kinds = [count_error_types(pairs, cut) for pairs, cut in matched]
    mean = {kind: np.mean([of_seed[kind] for of_seed in kinds], axis=0) for kind in kinds[0]}
    ones = np.ones(len(patients))
    for kind in (*_PER_LESION, *_PER_IMAGE):
        of = mean["lesions"] if kind in _PER_LESION else ones
        yield ShareName("errors", "", "", kind), mean[kind], of, patients
    reached = np.mean(
        [is_positive(find_lesions(pairs).best, cut) for pairs, cut in matched], axis=0
    )
    pairs = matched[0][0]
    trusted = rows[evaluated.is_boxed].reset_index(drop=True)
    for topic, of_lesion in lesion_groups(pairs, trusted).items():
        for group, chosen, _ in _split_groups(of_lesion):
            key = ShareName(f"{LESION_TOPIC}{topic}", group, "", "lesion_recall")
            yield key, reached * chosen, chosen, patients[pairs.truth.image]


def shortcut_table(models: Models) -> pd.DataFrame:
    """Return how well metadata and image borders alone predict the label, as failure rows.

    The models that predict the label from facts such as view, sex, age or file size are fitted on
    four fifths of the patients of the evaluated images, and evaluated on the others, in turn. A
    system that is not better than the strongest of them has not shown that it uses the lungs.
    """
    evaluated = images_of(models)
    positive = evaluated.y_true.astype(np.float64)
    labels = pd.DataFrame({evaluated.finding: positive}, index=evaluated.image_ids)
    systems = {
        name: [model.scores for model in members]
        for name, members in models.items()
        if all(model.output.has_scores for model in members)
    }
    guesses = [
        row
        for row in measure_shortcuts(evaluated.images, evaluated.facts, labels, systems=systems)
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
            "n_patients": len(np.unique(evaluated.patients)),
            "note": note,
        }

    rows = []
    for guess in guesses:
        ends = (guess["ci_low"], guess["ci_high"])
        known = f"known of {guess['n_known']} images"
        rows.append(row_of(guess, SHORTCUT, SHORTCUT, guess["auroc"], ends, known))
    compared = [row for row in guesses if "beyond" in row and row["kind"] != _WHOLE_IMAGE]
    for name, gap in compared[0]["beyond"].items() if compared else ():  # the strongest is first
        ends = (gap.ci_low, gap.ci_high) if gap.has_interval else (None, None)
        note = "AUROC from images of the same fold only"
        rows.append(row_of(compared[0], BEYOND_SHORTCUT, name, gap.estimate, ends, note))
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


def _add_right_wrong(shares: Shares, models: Models, policy: str) -> None:
    """Add the shares of images that both systems of a pair, one or neither decides correctly.

    They are those of the first seed of each system, of all, positive and negative images.
    """
    evaluated = images_of(models)
    truth = evaluated.y_true
    everything = np.ones(len(truth), dtype=bool)
    populations = {"all": everything, "positive": truth, "negative": ~truth}
    for first, second in combinations(models, 2):
        one, two = (models[name][0].called(policy) for name in (first, second))
        if one is None or two is None:
            continue
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
                shares.add(f"{first} & {second}", key, cell & of, of, evaluated.patients)


def predictive_values(
    recall: npt.ArrayLike, specificity: npt.ArrayLike, prevalence: npt.ArrayLike
) -> dict[str, Floats]:
    """Compute ``ppv`` and ``npv``, the predictive values at a prevalence, by Bayes' rule.

    The sensitivity and the specificity are assumed to be the same at this prevalence. All three are
    in [0, 1], numbers or arrays of one shape. ``ppv`` is the share of positives among the images
    that are called positive, and ``npv`` the share of negatives among the others; NaN where there
    is no such image.

    Example:
        >>> values = predictive_values(0.9, 0.8, 0.1)
        >>> {name: round(float(value), 3) for name, value in values.items()}
        {'ppv': 0.333, 'npv': 0.986}
    """
    hit, kept, ill = (np.asarray(x, np.float64) for x in (recall, specificity, prevalence))
    well = 1 - ill
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "ppv": hit * ill / (hit * ill + (1 - kept) * well),
            "npv": kept * well / (kept * well + (1 - hit) * ill),
        }


def add_at_prevalence(
    shares: Shares,
    models: Models,
    policy: str,
    prevalence: Prevalence,
    drawn: _DrawnShares | None = None,
) -> None:
    """Add the predictive values of each system at a prevalence; see `predictive_values`.

    Differences of systems follow from `drawn`, figures on resamples, where it has them, else from
    both intervals.
    """
    everything = np.ones(len(images_of(models).y_true), dtype=bool)
    for name, members in models.items():
        if not _metrics_of_groups(members, policy):
            continue
        counts = [confusion(model, policy, everything) for model in members]
        for metric in ("ppv", "npv"):
            key = ShareName("prevalence", prevalence.text, policy, metric)
            interval = _predictive_interval(metric, prevalence, counts)
            predictive = partial(_predictive, metric, prevalence)
            shares.add_interval(name, key, interval, _drawn_function(drawn, name, predictive))


_OfRates = Callable[[Floats, Floats], Floats]
"""Function of sensitivity and specificity, arrays of one shape."""


def _drawn_function(drawn: _DrawnShares | None, system: str, of_rates: _OfRates) -> Drawn | None:
    """Return a function of the sensitivity and specificity of a system on the resamples."""
    recall, specificity = (
        (drawn or {}).get((system, _EVERYTHING, metric)) for metric in ("recall", "specificity")
    )
    if recall is None or specificity is None:
        return None
    return replace(recall, values=of_rates(recall.values, specificity.values))


def _interval_of_rates(
    of_rates: _OfRates, counts: Sequence[Floats]
) -> tuple[Interval, ClusteredEstimate]:
    """Return a function of sensitivity and specificity with its interval by patient.

    `counts` has the outcomes by patient, shape ``(patients, 4)``, of each training seed.
    """
    seeds = [_rates(of_seed.sum(axis=0)) for of_seed in counts]
    value = float(of_rates(*np.mean(seeds, axis=0)))
    if np.isnan(value):
        return Interval(note=NONE_OF_THEM), ClusteredEstimate(value, None)
    estimate = function_over_seeds(lambda sums: of_rates(*_rates(sums)), counts)
    return interval_of(value, estimate), estimate


def _rates(counts: Floats) -> tuple[Floats, Floats]:
    """Return sensitivity and specificity of counts, shape ``(..., 4)``."""
    tp, fp, tn, fn = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(tp / (tp + fn)), np.asarray(tn / (tn + fp))


def _predictive_interval(metric: str, prevalence: Prevalence, counts: Sequence[Floats]) -> Interval:
    """Return a predictive value with an interval that includes that of the prevalence."""

    def of_rates(recall: Floats, specificity: Floats) -> Floats:
        return predictive_values(recall, specificity, prevalence.value)[metric]

    interval, estimate = _interval_of_rates(of_rates, counts)
    ends = estimate.interval_at(LEVEL)
    if ends is None:
        return interval
    wide = prevalence.widen(ends, estimate.estimate, rises=metric == "ppv")
    value = interval.estimate
    return Interval(value, min(wide.ci_low, value), max(wide.ci_high, value))


def _predictive(metric: str, prevalence: Prevalence, recall: Floats, specificity: Floats) -> Floats:
    return predictive_values(recall, specificity, prevalence.like(recall))[metric]
