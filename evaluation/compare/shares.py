"""Shares of images or lesions, by group and system, with intervals for groups and gaps alike.

Whatever is a count over a count is summed by patient once; every resample is then one product of
matrices, however many shares there are. Shares of called images are taken at thresholds that are
refitted on resampled validation patients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.compare.estimates import THRESHOLDS, is_chosen, of_choices
from evaluation.compare.scorecard import Cards, judged_of
from evaluation.decisions.decision import BOX_CUT
from evaluation.decisions.thresholds import ValidationScores, choose_again
from evaluation.statistics.bootstrap import (
    Interval,
    Resamples,
    cluster_bootstrap,
    percentile_interval,
)
from evaluation.statistics.ranking import Floats, is_positive

FAILURE_COLUMNS = (
    "topic", "group", "system", "policy", "metric", "estimate", "ci_low", "ci_high", "ci_method",
    "count", "of", "n_patients", "note",
)  # fmt: skip
NONE_OF_THEM = "there is none of them"


class ShareName(NamedTuple):
    """What a share is of: topic, group (such as ``F``), policy and metric."""

    topic: str
    group: str
    policy: str
    metric: str


_Key = tuple[str, ShareName]
"""A system and what a share is of; a share without a topic only serves others."""
_Values = Mapping[_Key, tuple[float, Floats]]
"""Estimate and replicates of each share."""


class _Derived(NamedTuple):
    """A figure that follows from shares: its key, the shares, the function of them."""

    key: _Key
    of: Sequence[_Key]
    compute: Callable[..., Floats]


class _Calls:
    """Which images each system calls positive, and in each resample at refitted thresholds.

    Validation patients are drawn beside the test patients, as for every figure.

    Attributes:
        patients: Of each image, shape ``(N,)``.
        held: By system whose thresholds are refitted, the share of its seeds that call an image.
        unsure: By system, why resamples cannot say how far its threshold varies; empty: they can.
        thresholds: Refitted, a column a seed of these systems; `None` without any.
    """

    def __init__(self, cards: Cards, policy: str, resamples: Resamples) -> None:
        self.patients = judged_of(cards).patients
        self.held: dict[str, Floats] = {}
        self.unsure: dict[str, str] = {}
        chosen_on: dict[tuple[str, int], list[ValidationScores]] = {}
        self._scores: dict[str, list[Floats]] = {}
        for name, members in cards.items():
            calls = [called for c in members if (called := c.called(policy)) is not None]
            kept = [c.validation for c in members if c.validation and policy in c.chosen_policies]
            if len(calls) < len(members) or len(kept) < len(members):
                continue
            of_seeds = [replace(scores, policies=(policy,)) for scores in kept]
            chosen_on |= {(name, seed): [scores] for seed, scores in enumerate(of_seeds)}
            self._scores[name] = [card.scores for card in members]
            self.held[name] = np.mean(calls, axis=0)
            self.unsure[name] = next(filter(None, (v.too_few_for(policy) for v in kept)), "")
        self._columns = [name for name, _ in chosen_on]
        refitted = [of_model[policy] for of_model in choose_again(chosen_on, resamples).values()]
        self.thresholds = np.column_stack(refitted) if refitted else None

    def called(self, system: str, thresholds: Floats) -> npt.NDArray[np.float32]:
        """The share of a system's seeds that call an image, ``(R, N)``, at rows of `thresholds`."""
        of_seeds = thresholds[:, [name == system for name in self._columns]]
        calls = [
            is_positive(scores, column[:, None])
            for scores, column in zip(self._scores[system], of_seeds.T, strict=True)
        ]
        called = np.asarray(np.mean(calls, axis=0, dtype=np.float32))
        called[np.isnan(of_seeds).any(axis=1)] = np.nan
        return called


class _Share(NamedTuple):
    """Counts by patient, and what an image adds if it is called."""

    counted: Floats
    of: Floats
    per_call: Floats | None


@dataclass
class Shares:
    """Counts over counts, by patient, of several systems.

    Attributes:
        n_patients: How many patients are resampled.
        calls: Where given, shares that count called images are resampled at refitted thresholds.
        gaps: Topics whose groups are also held against the rest, as ``not GROUP`` in the same
            topic.
    """

    n_patients: int
    calls: _Calls | None = None
    gaps: set[str] = field(default_factory=set)
    _derived: list[_Derived] = field(default_factory=list)
    _shares: dict[_Key, _Share] = field(default_factory=dict)

    @classmethod
    def of(cls, cards: Cards, policy: str, resamples: Resamples, gaps: set[str]) -> Shares:
        """Without any yet, for these systems' calls at a policy."""
        return cls(judged_of(cards).n_patients, _Calls(cards, policy, resamples), gaps)

    def add(
        self,
        system: str,
        name: ShareName,
        counted: npt.ArrayLike,
        of: npt.ArrayLike,
        patients: npt.NDArray[np.integer[Any]],
        per_call: npt.ArrayLike | None = None,
    ) -> None:
        """Add a share of images or lesions; `per_call`: what an image adds if it is called."""
        if self.calls is None or system not in self.calls.held:
            per_call = None
        by_patient, total = (
            np.asarray(
                np.bincount(patients, np.asarray(values, np.float64), minlength=self.n_patients),
                np.float64,
            )
            for values in (counted, of)
        )
        added = None if per_call is None else np.asarray(per_call, dtype=np.float64)
        self._shares[system, name] = _Share(by_patient, total, added)

    def derive(self, key: _Key, of: Sequence[_Key], compute: Callable[..., Floats]) -> None:
        """Add a figure that follows from shares."""
        self._derived.append(_Derived(key, of, compute))

    def table(self, systems: Sequence[str], resamples: Resamples) -> pd.DataFrame:
        """Estimate every share, its paired difference to the first system's, and its gap."""
        if not self._shares:
            return pd.DataFrame(columns=list(FAILURE_COLUMNS))
        values = self._values(resamples)
        keys = [key for key in values if key[1].topic]
        rows = [self._row([key], key, *values[key], resamples) for key in keys]
        for first, name in keys:
            others = systems[1:] if first == systems[0] else ()
            rows += [
                self._gap(values, (first, name), (second, name), resamples)
                for second in others
                if (second, name) in values
            ]
        for system, name in keys:
            rest = name._replace(group=f"not {name.group}")
            if name.topic in self.gaps and (system, rest) in values:
                rows.append(self._gap(values, (system, name), (system, rest), resamples))
        return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))

    def _values(self, resamples: Resamples) -> _Values:
        """Estimate and replicates of every share, and of what follows from them."""
        shares = list(self._shares.values())
        counts = np.stack([share.counted for share in shares], axis=1)
        # Many shares are of the same images: every distinct denominator is summed once.
        columns: dict[bytes, int] = {}
        of = [columns.setdefault(share.of.tobytes(), len(columns)) for share in shares]
        totals = np.stack([np.frombuffer(column) for column in columns], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole = counts.sum(axis=0) / totals.sum(axis=0)[of]
        drawn = self._replicates(counts, totals, of, resamples)
        values = {key: (float(whole[i]), drawn[:, i]) for i, key in enumerate(self._shares)}
        for derived in self._derived:
            parts = [values[key] for key in derived.of]
            estimate = float(derived.compute(*(part[0] for part in parts)))
            values[derived.key] = estimate, derived.compute(*(part[1] for part in parts))
        return values

    def _replicates(
        self, counts: Floats, totals: Floats, of: Sequence[int], resamples: Resamples
    ) -> Floats:
        """Every share on every resample, shape ``(R, shares)``."""
        # Percentiles need no more digits than single precision has, and come twice as fast.
        table, whole = counts.astype(np.float32), totals.astype(np.float32)
        calls, per_call = self.calls, {}
        if calls is not None and calls.thresholds is not None:
            for system, held in calls.held.items():
                added = {
                    column: share.per_call
                    for column, ((name, _), share) in enumerate(self._shares.items())
                    if name == system and share.per_call is not None
                }
                if not added:
                    continue
                table_of_images = np.stack(list(added.values()), axis=1)  # (N, K)
                per_call[system] = list(added), table_of_images.astype(np.float32)
                for column, values in added.items():  # what no call adds is left
                    table[:, column] -= np.bincount(
                        calls.patients, values * held, minlength=self.n_patients
                    )

        def statistic(
            weights: npt.NDArray[np.int16], thresholds: Floats | None = None
        ) -> dict[str, Floats]:
            used = weights.astype(np.float32)
            counted = used @ table
            if calls is not None and thresholds is not None:
                of_image = np.take(used, calls.patients, axis=1)
                for system, (columns, added) in per_call.items():
                    counted[:, columns] += (of_image * calls.called(system, thresholds)) @ added
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = counted / (used @ whole)[:, of]
            return {"share": np.asarray(shares, dtype=np.float64)}

        beside = calls.thresholds if calls is not None and per_call else None
        return cluster_bootstrap(statistic, resamples, beside=beside)["share"]

    def _refitted(self, key: _Key) -> bool:
        if key in self._shares:
            return self._shares[key].per_call is not None
        return any(d.key == key and all(map(self._refitted, d.of)) for d in self._derived)

    def _row(
        self,
        keys: Sequence[_Key],
        named: _Key,
        estimate: float,
        drawn: Floats,
        resamples: Resamples,
    ) -> dict[str, Any]:
        """A row of the table; `keys`: the share, or the two that it is the difference of."""
        refitted = all(map(self._refitted, keys))
        interval = percentile_interval(drawn)
        if np.isnan(estimate):
            interval = Interval(note=NONE_OF_THEM)
        elif refitted and self.calls is not None:
            unsure = [reason for system, _ in keys if (reason := self.calls.unsure.get(system))]
            interval = Interval(note=f"no interval: {unsure[0]}") if unsure else interval
        method = resamples.method + of_choices(_choices(named[1], refitted=refitted))
        share = self._shares.get(keys[0]) if len(keys) == 1 else None
        return {
            **named[1]._asdict(),
            "system": named[0],
            "estimate": estimate,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "ci_method": method if interval.bounded else "",
            "count": None if share is None else float(share.counted.sum()),
            "of": None if share is None else float(share.of.sum()),
            "n_patients": None if share is None else int((share.of > 0).sum()),
            "note": interval.note,
        }

    def _gap(
        self, values: _Values, first: _Key, second: _Key, resamples: Resamples
    ) -> dict[str, Any]:
        """A paired difference: between systems on one group, or between groups of one system."""
        (one, drawn_one), (two, drawn_two) = values[first], values[second]
        of_groups = first[0] == second[0]
        system = first[0] if of_groups else f"{first[0]} - {second[0]}"
        name = first[1]._replace(group=f"{first[1].group} - rest") if of_groups else first[1]
        return self._row(
            [first, second], (system, name), one - two, drawn_one - drawn_two, resamples
        )


def _choices(name: ShareName, *, refitted: bool) -> dict[str, bool]:
    """The choices on validation that a share rests on, and whether resamples make them again."""
    if is_chosen(name.policy):
        return {THRESHOLDS: refitted}
    if name.topic == "errors" or name.topic.startswith("lesions by "):
        return {BOX_CUT: False}
    return {"calibration": False} if name.metric == "net_benefit_calibrated" else {}
