"""The tidy table of figures: estimates, intervals, paired differences, and why one is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import beta  # type: ignore[attr-defined]

from data_prep.contracts.errors import InputError
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.seeds import SeedMean, by_system, mean_replicates
from evaluation.metrics.evaluation_set import JudgedImages, MetricKey
from evaluation.metrics.registry import METRICS, family, why_undefined
from evaluation.statistics.bootstrap import (
    LEVEL,
    NO_WIDTH,
    Interval,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats

if TYPE_CHECKING:
    from evaluation.compare.scorecard import Scorecard
    from evaluation.metrics.evaluation_set import MetricKey


EXACT_METHOD = "exact (Clopper-Pearson), patients as trials"


def clopper_pearson(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """The exact interval of a proportion.

    Args:
        hits: How many trials succeeded.
        trials: How many there were, at least 1.
        level: Coverage asked for.

    Returns:
        The interval; it never covers less than the level.

    Raises:
        InputError: There is no trial, or there are more hits than trials.

    Source:
        Clopper and Pearson 1934.

    Example:
        >>> interval = clopper_pearson(10, 10)
        >>> round(interval.low, 4), interval.high
        (0.6915, 1.0)
    """
    if not 0 <= hits <= trials or not trials:
        raise InputError(f"clopper_pearson: {hits} hits of {trials} trials; give at least one")
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, trials - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, trials - hits)) if hits < trials else 1.0
    return Interval(low, high)


def exact_interval(card: Scorecard, figure: MetricKey, estimate: float) -> Interval | None:
    """The interval of a proportion that is 0 or 1.

    All images that count are then decided alike, so a patient is one trial, right or wrong with
    all of them: more trials than patients would promise more than was seen.

    Args:
        card: The system.
        figure: Which figure.
        estimate: Its value.

    Returns:
        The interval of the share of such patients; `None` where the figure is not a proportion
        of images or lies between 0 and 1.
    """
    judged = card.judged
    called = card.called(figure.policy) if figure.policy else None
    share_of = METRICS[figure.metric].share_of
    if share_of is None or estimate not in (0.0, 1.0):
        return None
    counted = {
        "all": np.ones_like(judged.y_true),
        "positive": judged.y_true,
        "negative": ~judged.y_true,
        "called": called,
        "not_called": None if called is None else ~called,
    }[share_of]
    if counted is None:
        return None
    patients = np.unique(judged.patients[counted & judged.population(figure)])
    if len(patients) < 2:  # one patient gives no interval here, by any method
        return None
    return clopper_pearson(len(patients) if estimate else 0, len(patients))


COLUMNS = (
    "target", "unit", "subgroup", "system", "policy", "metric", "estimate", "ci_low", "ci_high",
    "ci_method", "n_images", "n_patients", "n_positive", "note",
)  # fmt: skip
NOT_TUNED = "not tuned for this policy"
_ONE_PATIENT = "one patient gives no interval"


class ResampledTable(NamedTuple):
    """A tidy table, and the replicates of its paired differences."""

    table: pd.DataFrame
    differences: dict[tuple[str, MetricKey], Floats]


def resampled_table(
    target: str,
    cards: Mapping[str, Scorecard],
    teams: Mapping[str, list[str]],
    resamples: Resamples,
    *,
    kept: Callable[[MetricKey], bool] = lambda figure: figure.metric not in family("counts"),
    advance: Callable[[int], None] | None = None,
) -> ResampledTable:
    """Resample the patients of all models at once, and put their systems into one tidy table.

    Args:
        target: The target's name.
        cards: Scorecard per trained model, all on the same images.
        teams: The models of each system, one per training seed.
        resamples: How patients are drawn.
        kept: Which figures get an interval; all but counts by default.
        advance: Called with the number of replicates done in each step.

    Returns:
        The table as `metrics_table` gives it, and by ``A - B`` and figure what tests are made of.
    """

    def figures(weights: np.ndarray) -> dict[tuple[str, MetricKey], Floats]:
        return {
            (name, figure): values
            for name, card in cards.items()
            for figure, values in card(weights).items()
            if kept(figure)
        }

    drawn = cluster_bootstrap(figures, resamples, advance)
    grouped = by_system(cards, teams)
    replicates = mean_replicates(drawn, teams, resamples)
    table = metrics_table(
        target,
        {name: SeedMean(group) if len(group) > 1 else group[0] for name, group in grouped.items()},
        replicates,
        resamples,
        seeds={name: len(group) for name, group in grouped.items()},
    )
    differences = {
        (f"{first} - {second}", figure): values - replicates[second, figure]
        for first, second in combinations(teams, 2)
        for (name, figure), values in replicates.items()
        if name == first and (second, figure) in replicates
    }
    return ResampledTable(table, differences)


def metrics_table(
    target: str,
    cards: Mapping[str, Scorecard | SeedMean],
    replicates: Mapping[tuple[str, MetricKey], Floats],
    resamples: Resamples,
    seeds: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Put estimates and replicates of all systems into one tidy table.

    Args:
        target: The target's name.
        cards: Scorecard per system, all on the same images.
        replicates: Values of each system's figures on the same resamples.
        resamples: How they were drawn.
        seeds: Training seeds behind each system; one where left out.

    Returns:
        The columns of `COLUMNS`; an undefined figure is NaN and its note says why.
    """
    estimates = {name: card.estimates() for name, card in cards.items()}
    missing = {name: card.missing() for name, card in cards.items()}
    table = _Table(target, next(iter(cards.values())).judged, resamples, seeds or {})
    for name in cards:
        for figure, estimate in estimates[name].items():
            note = why_undefined(figure.metric) if estimate is None else ""
            table.add(name, figure, estimate, replicates.get((name, figure)), note, cards[name])
        for figure, reason in missing[name].items():
            table.add(name, figure, None, None, reason)
    for first, second in combinations(cards, 2):
        for figure in dict.fromkeys([*estimates[first], *missing[first]]):
            if figure.metric in family("counts"):
                continue
            pair = [estimates[name].get(figure) for name in (first, second)]
            note = _why_no_difference(figure, (first, second), estimates, missing)
            estimate = None if pair[0] is None or pair[1] is None else pair[0] - pair[1]
            one, other = (replicates.get((name, figure)) for name in (first, second))
            values = None if one is None or other is None else one - other
            table.add(f"{first} - {second}", figure, estimate, values, note)
    return table.frame()


def _why_no_difference(
    figure: MetricKey,
    pair: tuple[str, str],
    estimates: Mapping[str, Mapping[MetricKey, float | None]],
    missing: Mapping[str, Mapping[MetricKey, str]],
) -> str:
    reasons = []
    for name in pair:
        if estimates[name].get(figure) is not None:
            continue
        reason = why_undefined(figure.metric) if figure in estimates[name] else NOT_TUNED
        reasons.append(f"{name}: {missing[name].get(figure, reason)}")
    return "; ".join(reasons)


class _Table:
    """Rows under way; counts of a figure's images are found once."""

    def __init__(
        self, target: str, judged: JudgedImages, resamples: Resamples, seeds: Mapping[str, int]
    ) -> None:
        self._target, self._judged, self._resamples = target, judged, resamples
        self._seeded = {name for name, count in seeds.items() if count > 1}
        self._rows: list[dict[str, Any]] = []
        self._counts: dict[bytes, dict[str, int]] = {}

    def add(
        self,
        system: str,
        figure: MetricKey,
        estimate: float | None,
        drawn: Floats | None,
        note: str,
        card: Scorecard | SeedMean | None = None,
    ) -> None:
        interval = Interval(None, None)
        bootstrapped = estimate is not None and drawn is not None
        if bootstrapped and self._judged.n_patients < 2:
            interval = Interval(None, None, _ONE_PATIENT)
        elif estimate is not None and drawn is not None:
            interval = percentile_interval(drawn, estimate=estimate)
        method = self._resamples.method
        if self._seeded.intersection(system.split(" - ")):
            method += " of patients and training seeds"
        if estimate is not None and interval.note == NO_WIDTH and isinstance(card, Scorecard):
            exact = exact_interval(card, figure, estimate)
            interval, method = (interval, method) if exact is None else (exact, EXACT_METHOD)
        self._rows.append(
            {
                "target": self._target,
                "unit": "image",
                **figure._asdict(),
                "system": system,
                "estimate": np.nan if estimate is None else estimate,
                "ci_low": np.nan if interval.low is None else interval.low,
                "ci_high": np.nan if interval.high is None else interval.high,
                "ci_method": "" if interval.low is None else method,
                **self._population(figure),
                "note": "; ".join(part for part in (note, interval.note) if part),
            }
        )

    def _population(self, figure: MetricKey) -> dict[str, int]:
        chosen = self._judged.population(figure)
        key = chosen.tobytes()
        if key not in self._counts:
            self._counts[key] = {
                "n_images": int(chosen.sum()),
                "n_patients": len(np.unique(self._judged.patients[chosen])),
                "n_positive": int((chosen & self._judged.y_true).sum()),
            }
        return self._counts[key]

    def frame(self) -> pd.DataFrame:
        return pd.DataFrame(self._rows, columns=list(COLUMNS))
