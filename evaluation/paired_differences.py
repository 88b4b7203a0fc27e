"""The table of figures and paired differences, all pairs in one pass over stored replicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.figures import COLUMNS, FigureRows, bootstrap_p_value, undefined
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.policies import is_given
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Floats, Integers, passes
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, auroc_differences
from cxr_compare.evaluation.statistics.intervals import (
    LEVEL,
    expanded_level,
    percentile_intervals,
)

_CALIBRATED_ONCE = "no p-value: resamples do not learn the calibrations again"
_BOXES_ONCE = "no p-value: resamples do not learn the positions of constant boxes again"


def figure_table(rows: FigureRows, pairs: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Return a row for each figure of a system, and for each that both of a pair have.

    The difference of a pair is the figure of its first system minus that of its second one.
    """
    names = np.array([*rows.systems], dtype=object)
    position = {name: row for row, name in enumerate(names)}
    places = [(position[one], position[other]) for one, other in pairs]
    first, second = np.array(places, dtype=np.int64).reshape(-1, 2).T
    parts = [rows.of_systems().assign(pair=-1)]
    for policy, metric in rows.keys:
        if METRICS[metric].family == "count" or not rows.is_compared(metric, policy):
            continue
        has_figure = [rows.replicates(name, metric, policy) is not None for name in names]
        has = np.array(has_figure)
        complete = np.flatnonzero(has[first] & has[second])
        if len(complete):
            columns = _of_figure(rows, metric, policy, first[complete], second[complete])
            pair = {
                "pair": complete,
                "first": names[first[complete]],
                "second": names[second[complete]],
            }
            parts.append(pd.DataFrame({**pair, "metric": metric, "policy": policy, **columns}))
    table = pd.concat(parts, ignore_index=True)
    table = table.sort_values("pair", kind="stable", ignore_index=True)
    figures = table.reindex(columns=list(COLUMNS))
    numbers = ("estimate", "p_value", "p_holm")
    figures = figures.astype(dict.fromkeys(numbers, np.float64))
    text = ["method", "note"]
    return figures.assign(**figures[text].astype(object).fillna(""))


def _of_figure(
    rows: FigureRows, metric: str, policy: str, first: Integers, second: Integers
) -> dict[str, Any]:
    """Return the columns of the differences in one figure of pairs, positions of systems."""
    used, places = np.unique([first, second], return_inverse=True)
    one, other = places.reshape(2, -1)
    names = [list(rows.systems)[row] for row in used]
    figures = [rows.replicates(name, metric, policy) for name in names]
    values = np.stack([figure for figure in figures if figure is not None])
    estimate = values[one, 0] - values[other, 0]
    if METRICS[metric].interval == "ranks":
        columns = _of_auroc(rows, names, one, other)
    else:
        columns = _resampled(rows, names, metric, policy, values, one, other)
        _drop_claims(rows, names, metric, columns, one, other)
    return {"estimate": estimate, **columns, **rows.size(metric)}


def _of_auroc(
    rows: FigureRows, names: Sequence[str], one: Integers, other: Integers
) -> dict[str, Any]:
    """Return the closed intervals of differences of AUROCs, and their p-values."""
    parts = [part for name in names if (part := rows.aurocs[name]) is not None]
    if len(parts) < len(names):
        return {"note": undefined(rows.truth, "auroc")}
    return {**auroc_differences(parts, one, other), "method": OBUCHOWSKI}


def _resampled(
    rows: FigureRows,
    names: Sequence[str],
    metric: str,
    policy: str,
    values: Floats,
    one: Integers,
    other: Integers,
) -> dict[str, Any]:
    """Return percentile intervals and p-values of differences of replicates, ``(S, 1 + R)``."""
    systems = [rows.systems[name] for name in names]
    estimate = values[one, 0] - values[other, 0]
    drawn = np.ascontiguousarray(values[:, 1:])
    low, high, p_value = np.full((3, len(one)), np.nan)
    note = np.full(len(one), "", dtype=object)
    why = _why_no_interval(systems, policy, one, other)
    note[why != ""] = "no interval: " + why[why != ""]
    note[np.isnan(estimate)] = undefined(rows.truth, metric)
    tested = note == ""
    once = _once(metric)
    effective = rows.size(metric)["effective_patients"]
    for alike, refits, cuts in _alike(systems, metric, policy, one, other):
        patients = None if refits else effective
        level = expanded_level(LEVEL, patients)
        for part in passes(len(alike), drawn.shape[1]):
            pairs = alike[part][tested[alike[part]]]
            gaps = drawn[one[pairs]] - drawn[other[pairs]]
            low[pairs], high[pairs], note[pairs] = percentile_intervals(
                gaps, level, estimate[pairs]
            )
            bounded = ~np.isnan(low[pairs])
            if not once:
                gaps, pairs = gaps[bounded], pairs[bounded]
                p_value[pairs] = bootstrap_p_value(gaps, None if cuts else patients)
    if once:
        bounded = ~np.isnan(low)
        note[bounded & (note != "")] += "; "
        note[bounded] += once
    return {
        "ci_low": low,
        "ci_high": high,
        "p_value": p_value,
        "note": note,
        "method": np.where(tested, BOOTSTRAP, "").astype(object),
    }


def _why_no_interval(
    systems: Sequence[SystemFigures], policy: str, one: Integers, other: Integers
) -> npt.NDArray[np.object_]:
    """Return why resamples do not choose the threshold of a system of each pair; empty if so."""
    reasons = np.array([system.choices.reasons.get(policy, "") for system in systems], dtype=object)
    return np.where(reasons[one] != "", reasons[one], reasons[other])


def _once(metric: str) -> str:
    """Return why a figure has no p-value although it has an interval; empty if it has one."""
    return _CALIBRATED_ONCE if METRICS[metric].interval == "losses" else ""


def _alike(
    systems: Sequence[SystemFigures], metric: str, policy: str, one: Integers, other: Integers
) -> Iterator[tuple[Integers, bool, bool]]:
    """Yield pairs whose resamples choose alike: a threshold again, and the rule of boxes again."""
    ranks = np.array([system.output.ranks for system in systems])  # else no threshold is chosen
    refits = (ranks[one] | ranks[other]) & (bool(policy) and not is_given(policy))
    rules = np.array([len(system.choices.rules) > 1 for system in systems])
    of_boxes = METRICS[metric].boxed and METRICS[metric].interval != "points"
    cuts = (rules[one] | rules[other]) & of_boxes
    for refit in (False, True):
        for cut in (False, True):
            yield np.flatnonzero((refits == refit) & (cuts == cut)), refit, cut


def _drop_claims(
    rows: FigureRows,
    names: Sequence[str],
    metric: str,
    columns: dict[str, Any],
    one: Integers,
    other: Integers,
) -> None:
    """Drop p-values of differences from image-blind baselines that learned too little."""
    position = {name: row for row, name in enumerate(names)}
    blind = np.array([position.get(image_blind_name(name), -1) for name in names])
    for pair in np.flatnonzero(other == blind[one]):
        places = rows.systems[names[other[pair]]].places
        no_claim = "" if places is None else places.no_claim
        tested = not np.isnan(columns["p_value"][pair])
        if not no_claim and METRICS[metric].needs == "boxes" and tested:
            no_claim = _BOXES_ONCE
        if no_claim:
            columns["p_value"][pair] = np.nan
            columns["note"][pair] = no_claim
