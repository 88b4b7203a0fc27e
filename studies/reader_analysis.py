"""Analysis of a reader study: figures of readers, their means, and differences (Hillis 2007).

The covariance of the figures over cases is by the jackknife over patients. A pair of modalities
(ways of reading) is crossed over the readers who read with both; with fewer than two such readers,
readers are nested in modalities. A system read the cases alone; it is a fixed reader. The interval
of a single reader or system is that of a comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.figures import interval_of_counts
from cxr_compare.evaluation.metrics import rates
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.statistics.clustered_counts import confusion_by_patient
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.ranking import RankedScores
from cxr_compare.studies.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    Effect,
    MultiReaderAnalysis,
    ReaderEstimate,
    analyse_crossed,
    analyse_nested,
    jackknife_covariance,
)

DECIDED = ("balanced_accuracy", "recall", "specificity", "accuracy", "f1")
_ROWS_AT_ONCE = 256
_COLUMNS = [
    *("kind", "metric", "first", "second", "reader", "estimate", "std_error", "df"),
    *("ci_low", "ci_high", "ci_low_all", "ci_high_all", "p_value", "p_value_all"),
    *("freedom_between", "cautious", "n_readers", "n_cases", "design"),
]
"""Columns of ``readers.csv``."""
_Ends = tuple[float | None, float | None]


class ReaderStudy(NamedTuple):
    """Results of a reader study.

    `figures` has one row for each figure, mean and difference, as in ``readers.csv``; `crossed` the
    analysis of each metric over all readers and modalities, where all read with each.
    """

    truth: pd.DataFrame
    readings: pd.DataFrame
    figures: pd.DataFrame
    crossed: dict[str, MultiReaderAnalysis]
    readers: Effect

    @property
    def metrics(self) -> list[str]:
        """Metrics of the study; the first one decides."""
        return list(dict.fromkeys(self.figures["metric"]))


def analyse(truth: pd.DataFrame, readings: pd.DataFrame, readers: Effect) -> ReaderStudy:
    """Compute every metric that the readings allow, and compare modalities and systems.

    `truth` and `readings` are as `readings.join` returns them; a system has the modality "".
    `readers` are ``random`` if the results shall hold for all like these, else ``fixed``.
    """
    own = readings[readings["modality"] != ""]
    n_readers = own.groupby("modality", sort=False)["reader"].nunique()
    if readers == "random" and n_readers.max() < 2:
        raise InputError("one reader cannot stand for others: take readers fixed")
    metrics = ["auroc"] if "rating" in own else []
    if "decision" in own:
        metrics += DECIDED
    studies = [_Metric(truth, readings, metric, readers) for metric in metrics]
    frame = pd.DataFrame([row for study in studies for row in study.rows()], columns=_COLUMNS)
    figures = frame.astype(object).where(frame.notna(), None)
    crossed = {study.metric: study.crossed for study in studies if study.crossed}
    return ReaderStudy(truth, readings, figures, crossed, readers)


class _Metric:
    """One metric: the figure of each reader and modality, and their covariance over patients."""

    def __init__(
        self, truth: pd.DataFrame, readings: pd.DataFrame, metric: str, readers: Effect
    ) -> None:
        self.metric = metric
        column = "rating" if metric == "auroc" else "decision"
        patient, n_patients = cluster_index(truth["patient"])
        owner = pd.Series(patient, truth.index)
        columns = []
        self.names: list[tuple[str, str]] = []  # modality and reader; a system has no modality
        self.n_cases = []
        self.ends: list[_Ends] = []
        for (modality, reader), rows in readings.groupby(["modality", "reader"], sort=False):
            if column in rows and rows[column].notna().all():
                of_case = owner[rows["case"]].to_numpy()
                label = truth.loc[rows["case"], "label"].to_numpy(dtype=bool)
                values = rows[column].to_numpy(np.float64)
                _, patient = np.unique(of_case, return_inverse=True)
                figure = _figure(metric, label, values, patient)
                self.ends.append(_interval_of_one(metric, label, values, patient))
                columns.append(_left_out(figure, np.unique(of_case), n_patients))
                self.names.append((str(modality), str(reader)))
                self.n_cases.append(len(rows))
        table = np.column_stack(columns)  # the whole, then without each patient
        self.figures = table[0]
        self.covariance = jackknife_covariance(table[1:])
        self.modalities = list(dict.fromkeys(name for name, _ in self.names if name))
        self.systems = [reader for name, reader in self.names if not name]
        self.effects: dict[str, Effect] = {
            name: readers if len(self._readers(name)) > 1 else "fixed" for name in self.modalities
        }
        first, *others = (set(self._readers(name)) for name in self.modalities)
        same = len(first) > 1 and all(first == other for other in others)
        self.crossed = (
            self._crossed(self.modalities, self._readers(self.modalities[0])) if same else None
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return single figures, then means over readers, then differences."""
        single = analyse_nested([[f] for f in self.figures], self.covariance, readers="fixed")
        rows = []
        for at, (modality, reader) in enumerate(self.names):
            named = {"kind": "reader", "first": modality, "reader": reader}
            if not modality:
                named = {"kind": "system", "first": reader}
            rows.append(self._row(named, single.systems[at], [at]))
        for name in self.modalities:
            mean = self._nested([name]).systems[0]
            rows.append(self._row({"kind": "mean", "first": name}, mean, self._columns(name)))
        gaps = {pair: self._pair(*pair) for pair in combinations(self.modalities, 2)}
        for name, system in product(self.modalities, self.systems):
            gap = self._nested([name, system]).differences[0, 1]
            design = "readers against a stand-alone system"
            gaps[name, system] = gap, self._columns(name), design
        for (first, second), (gap, columns, design) in gaps.items():
            named = {"kind": "difference", "first": first, "second": second, "design": design}
            rows.append(self._row(named, gap, columns, n_compared=len(gaps)))
        return rows

    def _readers(self, modality: str) -> list[str]:
        return [reader for name, reader in self.names if name == modality]

    def _columns(self, name: str) -> list[int]:
        """Return the columns of a modality's figures, or of a system's figure."""
        if name in self.systems:
            return [self.names.index(("", name))]
        return [at for at, (modality, _) in enumerate(self.names) if modality == name]

    def _crossed(self, modalities: Sequence[str], readers: Sequence[str]) -> MultiReaderAnalysis:
        columns = [self.names.index((name, reader)) for name in modalities for reader in readers]
        return analyse_crossed(
            self.figures[columns].reshape(len(modalities), len(readers)),
            self.covariance[np.ix_(columns, columns)],
            readers=self.effects[modalities[0]],
        )

    def _nested(self, names: Sequence[str]) -> MultiReaderAnalysis:
        groups = [self._columns(name) for name in names]
        columns = [column for group in groups for column in group]
        return analyse_nested(
            [self.figures[group] for group in groups],
            self.covariance[np.ix_(columns, columns)],
            readers=[self.effects.get(name, "fixed") for name in names],
        )

    def _pair(self, first: str, second: str) -> tuple[ReaderEstimate, list[int], str]:
        """Return the difference of two modalities, the figures that enter it, and its design."""
        both = [reader for reader in self._readers(first) if reader in self._readers(second)]
        if len(both) < 2:
            gap = self._nested([first, second]).differences[0, 1]
            return (
                gap,
                self._columns(first) + self._columns(second),
                "nested: readers differ by modality",
            )
        names = self.modalities if self.crossed else [first, second]
        n_readers = len({*self._readers(first), *self._readers(second)})
        design = (
            "crossed"
            if self.crossed
            else f"crossed, by the {len(both)} of {n_readers} readers with both"
        )
        gap = self._crossed(names, both).differences[names.index(first), names.index(second)]
        return gap, [self.names.index((name, r)) for name in (first, second) for r in both], design

    def _row(
        self,
        named: dict[str, str],
        estimate: ReaderEstimate,
        columns: list[int],
        *,
        n_compared: int = 1,
    ) -> dict[str, Any]:
        """Return a row of ``readers.csv``; with few readers a claim rests on cautious intervals.

        `named` says what the estimate is, and `columns` are the figures that enter it.
        """
        freedom = estimate.freedom_between
        cautious = 0 < freedom < FREEDOM_OF_A_CLAIM
        level_of_all = 1 - (1 - LEVEL) / n_compared
        is_difference = named["kind"] == "difference"
        ends: _Ends = estimate.interval_at(LEVEL) or (None, None)
        ends_of_all: _Ends = (None, None)
        if cautious:
            ends_of_all = estimate.cautious_interval_at(level_of_all)
        elif is_difference:
            ends_of_all = estimate.interval_at(level_of_all) or (None, None)
        p_of_claim = estimate.cautious_p_value if cautious else estimate.p_value
        if len(columns) == 1:
            ends = self.ends[columns[0]]
        elif not is_difference:
            ends, ends_of_all = _inside(ends), _inside(ends_of_all)
        found = {
            "metric": self.metric,
            "estimate": estimate.estimate,
            "std_error": estimate.error,
            "df": estimate.freedom if np.isfinite(estimate.freedom) else None,
            "ci_low": ends[0],
            "ci_high": ends[1],
            "ci_low_all": ends_of_all[0],
            "ci_high_all": ends_of_all[1],
            "p_value": estimate.p_value if is_difference else None,
            "p_value_all": min(1.0, n_compared * p_of_claim)
            if is_difference and p_of_claim is not None
            else None,
            "freedom_between": int(freedom) or None,
            "cautious": cautious,
            "n_readers": len({self.names[at][1] for at in columns if self.names[at][0]}),
            "n_cases": max(self.n_cases[at] for at in columns),
        }
        texts = dict.fromkeys(("kind", "first", "second", "reader", "design"), "")
        return texts | named | found


def _inside(ends: _Ends) -> _Ends:
    low, high = ends
    return (low, high) if low is None or high is None else (max(low, 0.0), min(high, 1.0))


def _figure(
    metric: str, positive: npt.NDArray[np.bool_], values: Floats, patient: Integers
) -> Callable[[Integers], Floats]:
    """Return a function of patient weights, ``(R, patients)``, that gives a figure, ``(R,)``."""
    if metric == "auroc":
        return RankedScores(positive, values, patient).auroc
    counts = confusion_by_patient(positive, values == 1, patient, int(patient.max()) + 1)
    names = ("tp", "fp", "tn", "fn")
    return lambda weights: rates(dict(zip(names, (weights @ counts).T, strict=True)))[metric]


def _interval_of_one(
    metric: str, positive: npt.NDArray[np.bool_], values: Floats, patient: Integers
) -> _Ends:
    """Return the ends of the interval of one reader or system, by the rule of a comparison."""
    n_patients = int(patient.max()) + 1
    if metric == "auroc":
        parts = auroc_parts(positive, values, patient, n_patients)
        ends = None if parts is None else parts.estimate().interval_at(LEVEL)
        return ends or (None, None)
    counts = confusion_by_patient(positive, values == 1, patient, n_patients)
    once = np.ones((1, n_patients), dtype=np.int16)
    value = float(_figure(metric, positive, values, patient)(once)[0])
    found = interval_of_counts(counts, metric, value)
    return found.get("ci_low"), found.get("ci_high")


def _left_out(figure: Callable[[Integers], Floats], present: Integers, n_patients: int) -> Floats:
    """Return a figure of all patients, then without each of them; NaN for who is not present."""
    values = np.full(n_patients + 1, np.nan)
    values[0] = figure(np.ones((1, len(present)), dtype=np.int16))[0]
    for rows in np.array_split(np.arange(len(present)), len(present) // _ROWS_AT_ONCE + 1):
        weights = np.ones((len(rows), len(present)), dtype=np.int16)
        weights[np.arange(len(rows)), rows] = 0
        values[1 + present[rows]] = figure(weights)
    return values
