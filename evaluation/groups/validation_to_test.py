"""Comparison of figures on validation images with those on test images, and expected ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models
from cxr_compare.evaluation.groups.shares import FAILURE_COLUMNS
from cxr_compare.evaluation.metrics.image_metrics import rates
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import thread_count
from cxr_compare.evaluation.statistics.intervals import LEVEL, MOST_UNDEFINED
from cxr_compare.evaluation.statistics.patient_exchange import ExchangedPatients
from cxr_compare.evaluation.statistics.ranking import RankedScores
from cxr_compare.evaluation.thresholds import ValidationScores

VALIDATION = "validation to test"
"""Topic in the failure table of figures at a chosen threshold, on validation and on test images."""
_METRICS = ("recall", "specificity", "accuracy")
_EXCHANGES = 1000
_CELLS = 2_000_000
"""Largest number of image decisions that are computed at once, which limits the memory."""
_EXPECTED = "expected: validation and test patients exchanged, threshold chosen again; all at once"


def validation_to_test(models: Models, seed: int = 0) -> pd.DataFrame:
    """Compare figures on the validation images, which chose the threshold, and on test images.

    A threshold does better on the images on which it was chosen than on others. To find out what is
    to be expected on test images, patients of validation and test are exchanged 1,000 times at
    random, and each time the threshold is chosen again. From this follows a range for each figure
    on test. If validation and test patients come from the same population, all figures at one
    threshold lie in their ranges at once with 95 % probability. If a system has several training
    seeds, the first one is taken.

    Args:
        models: Evaluated models of each system by its display name, one for each training seed.
        seed: Random seed of the exchanges.

    Returns:
        Table with the columns of `FAILURE_COLUMNS`, such as ``group``, ``system``, ``policy``,
        ``metric`` and ``estimate``. There are two rows for each system, rule for the threshold
        (``policy``, such as ``max_f1``) and metric (sensitivity, specificity and accuracy): one
        with the figure on validation images (``group`` is ``validation``), and one with the figure
        on test images (``group`` is ``test``), whose ``ci_low`` and ``ci_high`` are the ends of the
        expected range.
    """
    first = {
        name: members[0]
        for name, members in models.items()
        if members[0].choices.chosen_scores is not None and members[0].chosen_policies
    }
    rows: list[dict[str, Any]] = []
    exchanged = _exchanged_figures(first, seed)
    for name, model in first.items():
        sides = zip(model.chosen_policies, exchanged[name], strict=True)
        for policy, (on_validation, on_test) in sides:
            expected = _expected_on_test(on_validation, on_test)
            for column, metric in enumerate(_METRICS):
                row = {
                    "system": name,
                    "policy": policy,
                    "metric": metric,
                    "ci_method": "",
                    "note": "",
                }
                validation_row = {"group": "validation", "estimate": on_validation[0, column]}
                test_row = {
                    "group": "test",
                    "estimate": on_test[0, column],
                    "ci_low": expected.low[column],
                    "ci_high": expected.high[column],
                    "ci_method": _EXPECTED,
                }
                rows += [row | validation_row, row | test_row]
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS)).assign(topic=VALIDATION)


def _exchanged_figures(models: Mapping[str, EvaluatedModel], seed: int) -> dict[str, Floats]:
    """Compute the figures on validation and on test, first as they are, then with exchanges.

    Systems with the same validation images share the exchanges.

    Returns:
        Figures by system, shape ``(policies, 2, 1 + exchanges, metrics)``. On the second axis,
        validation comes first. On the third axis, the figures without an exchange come first.
    """
    alike: dict[bytes, dict[str, _Pooled]] = {}
    for name, model in models.items():
        pooled = _Pooled.from_model(model)
        images = pooled.inside.tobytes() + pooled.truth.tobytes() + pooled.patients.tobytes()
        alike.setdefault(images, {})[name] = pooled
    figures: dict[str, Floats] = {}
    for systems in alike.values():
        of_systems = list(systems.values())
        one = of_systems[0]
        rng = np.random.default_rng(seed)
        exchanged = ExchangedPatients(one.inside, one.truth, one.patients)
        step = max(1, _CELLS // len(one.inside))
        counts = [min(step, _EXCHANGES - done) for done in range(0, _EXCHANGES, step)]
        with ThreadPoolExecutor(thread_count()) as pool:  # which draws the next while it computes
            drawn = (exchanged.draw(count, rng) for count in counts)
            parts = list(pool.map(partial(_figures_of_all, of_systems), drawn))
        parts.insert(0, _figures_of_all(of_systems, one.inside[None]))
        for name, of_one in zip(systems, zip(*parts, strict=True), strict=True):
            figures[name] = np.concatenate(of_one, axis=2)
    return figures


@dataclass(frozen=True, eq=False)
class _Pooled:
    """Validation and test images of one model together, and the figures on both sides."""

    inside: npt.NDArray[np.bool_]  # (N,), True for validation images
    truth: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.int64]
    figures: Callable[[npt.NDArray[np.bool_]], Floats]

    @classmethod
    def from_model(cls, model: EvaluatedModel) -> _Pooled:
        validation = model.choices.chosen_scores
        if validation is None:
            raise ValueError("a model without validation images chose nothing")
        images = model.images
        _, owner = np.unique(validation.patients, return_inverse=True)
        patients = np.concatenate([owner, images.patients + owner.max() + 1])
        truth = np.concatenate([validation.y_true, images.y_true])
        scores = np.concatenate([validation.scores, model.scores])
        policies = tuple(model.chosen_policies)
        pooled = ValidationScores(truth, scores, patients.astype(str), policies)
        inside = np.arange(len(truth)) < len(owner)
        return cls(inside, truth, patients, _figures_of_both_sides(pooled))


def _figures_of_both_sides(
    pooled: ValidationScores,
) -> Callable[[npt.NDArray[np.bool_]], Floats]:
    """Return a function that computes the figures of both sides.

    Its argument is True for the images of the first side, shape ``(R, N)``. Its result has the
    shape ``(policies, 2, R, metrics)``.
    """
    n_images = len(pooled.y_true)
    ranked = RankedScores(pooled.y_true, pooled.scores)
    refit = pooled.refit(np.arange(n_images), n_images)
    whole = ranked.sums(np.ones((1, n_images), dtype=np.int16))

    def figures(members: npt.NDArray[np.bool_]) -> Floats:
        inside = members.astype(np.int16)
        sums = ranked.sums(inside)
        table = []
        for thresholds in refit(inside).values():
            all_counts = whole.counts(thresholds)
            counts = sums.counts(thresholds)
            outside = {name: all_counts[name] - counts[name] for name in counts}
            sides = [rates(**counts), rates(**outside)]
            table.append([[side[metric] for metric in _METRICS] for side in sides])
        return np.array(table).swapaxes(2, 3)

    return figures


def _figures_of_all(pooled: Sequence[_Pooled], members: npt.NDArray[np.bool_]) -> list[Floats]:
    return [each.figures(members) for each in pooled]


class _Expected(NamedTuple):
    """Range in which each figure on test was expected."""

    low: Floats  # (metrics,)
    high: Floats  # (metrics,)


def _expected_on_test(on_validation: Floats, on_test: Floats) -> _Expected:
    """Compute the expected range of each figure on test.

    Both arguments have the shape ``(1 + exchanges, metrics)``; their first rows are the figures
    without an exchange.
    """
    falls = on_test - on_validation
    known = falls[~np.isnan(falls).any(axis=1)]
    if len(known) < (1 - MOST_UNDEFINED) * len(falls):
        unknown = np.full(falls.shape[1], np.nan)
        return _Expected(unknown, unknown)
    middle = known.mean(axis=0)
    spread = known.std(axis=0)
    distance = np.abs((known - middle) / np.where(spread > 0, spread, np.inf)).max(axis=1)
    reach = np.quantile(distance, LEVEL) * spread
    expected = on_validation[0] + middle
    return _Expected(np.maximum(expected - reach, 0), np.minimum(expected + reach, 1))
