"""Analysis of a reader study: figures, their covariance, means over readers, and differences.

The covariance of the figures is estimated by the jackknife over patients. The model of readers and
cases is in `evaluation.statistics.obuchowski_rockette`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import cluster_index
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.evaluation.statistics.obuchowski_rockette import (
    FREEDOM_OF_A_CLAIM,
    FREEDOM_OF_THE_OVERALL_TEST,
    Effect,
    MultiReaderAnalysis,
    OverallTest,
    ProgramComponents,
    analyse_crossed,
    analyse_nested,
    jackknife_covariance,
    program_components,
)
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_study import DECIDED, ReaderStudy

_Kind = Literal["reader", "system", "mean", "difference"]


_ROWS_AT_ONCE = 256  # rows of jackknife weights in memory; each has a weight for every patient


_Name = tuple[str, str]  # reader and modality; a system has the modality ""


@dataclass(frozen=True)
class StudyRow:
    """One result of a reader study, such as the AUROC of a reader: a row of ``readers.csv``.

    A modality is a way of reading, such as with or without a system's help.

    Attributes:
        kind: ``reader`` (metric of one reader with one modality), ``system`` (metric of a program
            that read the cases alone), ``mean`` (over the readers of a modality) or ``difference``
            (of two means, or of a mean and a system).
        metric: Short name of the metric, such as ``auroc``.
        first: Name of the modality or system. For a difference, `second` is subtracted from it.
        second: Name of the modality or system that is subtracted; empty unless this is a
            difference.
        reader: Name of the reader if `kind` is ``reader``; empty otherwise.
        std_error: Standard error; None if nothing varies.
        df: Degrees of freedom of the t distribution; None for the normal distribution.
        ci_low: Lower end of the confidence interval at the level of the study, such as 95 %. For a
            metric or a mean, the interval is cut to the range of the metric. None if unknown.
        ci_low_all: Lower end of the interval that holds for all differences of a metric at once
            (Bonferroni). With few degrees of freedom between readers this interval is a cautious
            one, and it is then given for a mean, too. None otherwise.
        p_value: p-value of the hypothesis of no difference by the published method, for this
            comparison alone; None unless this is a difference.
        p_value_all: p-value that belongs to the interval for all differences at once (`ci_low_all`
            to `ci_high_all`); None if there is no such interval.
        freedom_between: Degrees of freedom of the variance between readers; None if readers are
            fixed (the results hold for these readers only).
        cautious: True if `freedom_between` is too small for the published interval to be reliable.
        design: Sentence on whether the same readers read with both modalities of a difference;
            empty unless this is a difference.
    """

    kind: _Kind
    metric: str
    first: str
    second: str
    reader: str
    estimate: float
    std_error: float | None
    df: float | None
    ci_low: float | None
    ci_high: float | None
    ci_low_all: float | None
    ci_high_all: float | None
    p_value: float | None
    p_value_all: float | None
    freedom_between: int | None
    cautious: bool
    n_readers: int
    n_cases: int
    design: str

    @property
    def decided(self) -> bool:
        """True for a difference that is statistically shown even among all differences together.

        Its interval for all differences at once (`ci_low_all` to `ci_high_all`) excludes 0.
        """
        if self.kind != "difference" or self.ci_low_all is None or self.ci_high_all is None:
            return False
        return self.ci_low_all > 0 or self.ci_high_all < 0


@dataclass(frozen=True)
class OverallResult:
    """Test of the hypothesis that all modalities of a reader study have the same mean.

    A modality is a way of reading, such as with or without a system's help. The test is made with
    three modalities or more.

    Attributes:
        test: Statistic, degrees of freedom and p-value.
        freedom_between: Degrees of freedom of the variance between readers; None if readers are
            fixed (the results hold for these readers only).
        significant: True if the p-value is below 1 minus the confidence level of the study, such as
            0.05.
        decides: True if `freedom_between` is large enough for the test to be reliable without a
            further condition.
        n_pairs: Number of pairs of modalities.
        n_pairs_shown: Number of pairs of modalities whose difference is statistically shown.
    """

    test: OverallTest
    n_modalities: int
    n_readers: int
    freedom_between: int | None
    significant: bool
    decides: bool
    n_pairs: int
    n_pairs_shown: int

    @property
    def decided(self) -> bool:
        """True if the modalities are statistically shown to differ.

        The test must be significant. If the degrees of freedom between readers are too few, the
        difference of a pair must be shown as well.
        """
        return self.significant and (self.decides or self.n_pairs_shown > 0)


@dataclass(frozen=True)
class AgainstSystem:
    """Comparison of the readers of one modality with a program that read the cases alone.

    The program is called the system. A modality is a way of reading, such as with or without a
    system's help.

    The components are those of the differences "reader minus system".
    """

    metric: str
    modality: str
    system: str
    components: ProgramComponents


@dataclass(frozen=True)
class ReaderAnalysis:
    """Results of a reader study: metrics of readers and modalities, and their differences.

    A modality is a way of reading, such as with or without a system's help.

    Attributes:
        readers: ``random`` if the results hold for all readers like these, ``fixed`` if for these
            readers only.
        cases: ``random`` if the results hold for all patients like these, ``fixed`` if for these
            patients only.
        level: Confidence level of the intervals, in (0, 1), such as 0.95.
        rows: All results: metrics of readers and systems, means and differences.
        crossed: Analysis of each metric over all readers and modalities, by short name of the
            metric; empty unless all readers read with each modality.
        against: Comparisons with systems (programs that read the cases alone), for modalities with
            two readers or more.

    Example:
        >>> from cxr_compare.studies.readers.readings import join_readings
        >>> cases = pd.Index(list("abcd"), name="case")
        >>> truth = pd.DataFrame({"label": [True, True, False, False], "patient": cases}, cases)
        >>> readings = pd.DataFrame({"reader": list("11112222"), "modality": "CT",
        ...     "case": [*cases, *cases], "rating": [4, 2, 3, 1, 3, 4, 1, 2]})
        >>> analysis = analyse_readers(join_readings(truth, [readings], {}))
        >>> analysis.primary, [row.estimate for row in analysis.rows_of("mean", "auroc")]
        ('auroc', [0.875])
    """

    study: ReaderStudy
    readers: Effect
    cases: Effect
    level: float
    rows: tuple[StudyRow, ...]
    crossed: dict[str, MultiReaderAnalysis]
    against: tuple[AgainstSystem, ...] = ()

    @property
    def metrics(self) -> list[str]:
        """Short names of the metrics of the study, such as ``auroc``.

        The conclusions of the study are drawn from the first one.
        """
        return list(dict.fromkeys(row.metric for row in self.rows))

    @property
    def primary(self) -> str:
        """Short name of the metric from which the conclusions of the study are drawn.

        It is the weighted AFROC if the readers mark lesions, the AUROC if they rate cases, and the
        balanced accuracy otherwise.
        """
        return self.metrics[0]

    def rows_of(self, kind: _Kind, metric: str) -> list[StudyRow]:
        """Return all results of one kind for one metric, in the order of the study."""
        return [row for row in self.rows if row.kind == kind and row.metric == metric]

    def pairs_of(self, metric: str) -> list[StudyRow]:
        """Return the differences between each two modalities (ways of reading) for a metric.

        Differences between a modality and a system (a program that read alone) are left out.

        They are in the order of the study.
        """
        modalities = self.study.modalities
        return [row for row in self.rows_of("difference", metric) if row.second in modalities]

    def overall(self, metric: str) -> OverallResult | None:
        """Return the test of the hypothesis that all modalities have the same mean of a metric.

        None with fewer than three modalities, or if not all readers read with each modality.
        """
        crossed = self.crossed.get(metric)
        n_modalities = len(self.study.modalities)
        if crossed is None or crossed.overall is None or n_modalities < 3:
            return None
        n_readers = len(self.study.readers(self.study.modalities[0]))
        pairs = self.pairs_of(metric)
        p_value = crossed.overall.p_value
        freedom = (n_modalities - 1) * (n_readers - 1) if self.readers == "random" else None
        return OverallResult(
            test=crossed.overall,
            n_modalities=n_modalities,
            n_readers=n_readers,
            freedom_between=freedom,
            significant=p_value is not None and p_value < 1 - self.level,
            decides=freedom is None or freedom >= FREEDOM_OF_THE_OVERALL_TEST,
            n_pairs=len(pairs),
            n_pairs_shown=sum(pair.decided for pair in pairs),
        )


def analyse_readers(
    study: ReaderStudy,
    *,
    readers: Effect = "random",
    cases: Effect = "random",
    level: float = LEVEL,
) -> ReaderAnalysis:
    """Analyse a reader study: compute every metric that the readings allow, and compare modalities.

    A modality is a way of reading, such as with or without a system's help. A pair of modalities is
    analysed as crossed over the readers who read with both. With fewer than two such readers it is
    analysed as nested: each modality has its own readers. A modality with one reader gives results
    for that reader only. A system that read the cases alone (a program) is treated as a fixed
    reader.

    `readers` and `cases` are ``random`` if the results shall hold for all like these, ``fixed`` if
    for these only. Raises InputError if neither is random, or readers are random and no modality
    has two readers.

    Source:
        Obuchowski and Rockette 1995, see `evaluation.statistics.obuchowski_rockette`; the
        covariance over cases is estimated by the jackknife over patients.
    """
    if readers == cases == "fixed":
        raise InputError("readers and cases are both fixed, so nothing varies; let one be random")
    most = max(len(study.readers(modality)) for modality in study.modalities)
    if readers == "random" and most < 2:
        raise InputError("one reader cannot stand for others: take --readers fixed")
    rows: list[StudyRow] = []
    crossed = {}
    against: list[AgainstSystem] = []
    readings = _readings(study)
    for metric in study.metrics:
        evaluate = _MetricStudy(study, readings, metric, readers, cases, level)
        rows += evaluate.rows()
        against += evaluate.against_systems()
        if evaluate.crossed is not None:
            crossed[metric] = evaluate.crossed
    return ReaderAnalysis(study, readers, cases, level, tuple(rows), crossed, tuple(against))


@dataclass(frozen=True)
class _Reading:
    """Readings of a reader with one modality, or of a system, with the patients of the cases.

    `patients` are the numbers of those who have a case here, ascending; `owner` is the patient of
    each of `rows`, as a position in them.
    """

    rows: pd.DataFrame
    patients: Integers
    owner: Integers


def _readings(study: ReaderStudy) -> dict[_Name, _Reading]:
    patient_of, _ = cluster_index(study.truth["patient"])
    tables = pd.concat([study.readings, study.systems])
    readings = dict[_Name, _Reading]()
    case_positions = study.truth.index.get_indexer(pd.Index(tables["case"]))
    group = tables.groupby(["reader", "modality"], sort=False).ngroup().to_numpy()
    for number in range(group.max() + 1):
        chosen = np.flatnonzero(group == number)
        patients, owner = np.unique(patient_of[case_positions[chosen]], return_inverse=True)
        rows = tables.iloc[chosen]
        name = str(rows["reader"].iloc[0]), str(rows["modality"].iloc[0])
        readings[name] = _Reading(rows, patients, owner)
    return readings


@dataclass(frozen=True)
class _PairDifference:
    """Difference of two modalities, the first minus the second.

    `columns` are those of the figures that enter it; `design` is a sentence on how readers and
    modalities are combined.
    """

    estimate: ClusteredEstimate
    columns: list[int]
    design: str


class _MetricStudy:
    """Analysis of one metric: the figure of each reader and modality, and their covariance."""

    def __init__(
        self,
        study: ReaderStudy,
        readings: Mapping[_Name, _Reading],
        metric: str,
        readers: Effect,
        cases: Effect,
        level: float,
    ) -> None:
        self.study = study
        self.metric = metric
        self.cases = cases
        self.level = level
        needed = "decision" if metric in DECIDED else "rating"
        complete = {
            name: reading
            for name, reading in readings.items()
            if name[1] or (needed in reading.rows and reading.rows[needed].notna().all())
        }
        self.columns: dict[_Name, int] = {name: column for column, name in enumerate(complete)}
        self.counts = [len(reading.rows) for reading in complete.values()]
        n_patients = study.truth["patient"].nunique()
        left_out = [
            _left_out(study.figure(metric, r.rows, r.owner), r.patients, n_patients)
            for r in complete.values()
        ]
        table = np.column_stack(left_out)  # (patients + 1, figures)
        self.figures = table[0]
        self.covariance = jackknife_covariance(table[1:])
        self.systems = [name for name, modality in self.columns if not modality]
        self.effects: dict[str, Effect] = {
            modality: readers if len(study.readers(modality)) > 1 else "fixed"
            for modality in study.modalities
        }
        self.crossed = self._all_crossed()

    def rows(self) -> list[StudyRow]:
        """Return single figures, then means over readers, then differences."""
        modalities = self.study.modalities
        rows = []
        for (name, column), estimate in zip(self.columns.items(), self._singles(), strict=True):
            reader, modality = name
            if modality:
                rows.append(self._row("reader", modality, [column], estimate, reader=reader))
            else:
                rows.append(self._row("system", reader, [column], estimate))
        for modality in modalities:
            study = self._nested([modality])
            rows.append(self._row("mean", modality, self._columns_of(modality), study.systems[0]))
        pairs = list(combinations(modalities, 2))
        against = [(modality, system) for modality in modalities for system in self.systems]
        comparisons = max(1, len(pairs) + len(against))
        for first, second in pairs:
            pair = self._pair(first, second)
            rows.append(
                self._row(
                    "difference",
                    first,
                    pair.columns,
                    pair.estimate,
                    second,
                    pair.design,
                    comparisons=comparisons,
                )
            )
        for modality, system in against:
            study = self._nested([modality, system])
            rows.append(
                self._row(
                    "difference",
                    modality,
                    self._columns_of(modality),
                    study.differences[0, 1],
                    system,
                    reader_sentences.DESIGN_SYSTEM,
                    comparisons=comparisons,
                )
            )
        return rows

    def against_systems(self) -> list[AgainstSystem]:
        """Return the variance components of each modality's readers against each system."""
        found = []
        for modality in self.study.modalities:
            for system in self.systems:
                columns = self._columns_of(modality) + self._columns_of(system)
                components = program_components(
                    self.figures[columns], self.covariance[np.ix_(columns, columns)]
                )
                if components is not None:
                    found.append(AgainstSystem(self.metric, modality, system, components))
        return found

    def _columns_of(self, name: str) -> list[int]:
        """Return the columns of a modality's figures, or of a system's figure."""
        if (name, "") in self.columns:
            return [self.columns[name, ""]]
        return [column for (_, modality), column in self.columns.items() if modality == name]

    def _singles(self) -> list[ClusteredEstimate]:
        """Estimate each figure by itself, over cases."""
        if self.cases == "fixed":
            return [ClusteredEstimate(float(value), None) for value in self.figures]
        alone = [[value] for value in self.figures]
        return list(analyse_nested(alone, self.covariance, readers="fixed").systems)

    def _all_crossed(self) -> MultiReaderAnalysis | None:
        modalities = self.study.modalities
        readers = self.study.readers(modalities[0])
        same = all(set(self.study.readers(modality)) == set(readers) for modality in modalities)
        return self._crossed(modalities, readers) if same and len(readers) > 1 else None

    def _crossed(self, modalities: Sequence[str], readers: Sequence[str]) -> MultiReaderAnalysis:
        columns = [self.columns[reader, modality] for modality in modalities for reader in readers]
        return analyse_crossed(
            self.figures[columns].reshape(len(modalities), len(readers)),
            self.covariance[np.ix_(columns, columns)],
            readers=self.effects[modalities[0]],
            cases=self.cases,
        )

    def _nested(self, names: Sequence[str]) -> MultiReaderAnalysis:
        groups = [self._columns_of(name) for name in names]
        columns = [column for group in groups for column in group]
        return analyse_nested(
            [self.figures[group] for group in groups],
            self.covariance[np.ix_(columns, columns)],
            readers=[self.effects.get(name, "fixed") for name in names],
            cases=self.cases,
        )

    def _pair(self, first: str, second: str) -> _PairDifference:
        readers = [set(self.study.readers(modality)) for modality in (first, second)]
        both = [reader for reader in self.study.readers(first) if reader in readers[1]]
        if len(both) < 2:
            estimate = self._nested([first, second]).differences[0, 1]
            columns = self._columns_of(first) + self._columns_of(second)
            design = reader_sentences.DESIGN_NESTED
            return _PairDifference(estimate, columns, design)
        names = self.study.modalities
        n_readers = None
        if self.crossed is None:
            names = [first, second]
            n_readers = len(set.union(*readers))
        design = reader_sentences.design_crossed(len(both), n_readers)
        pair = names.index(first), names.index(second)
        estimate = self._crossed(names, both).differences[pair]
        columns = [self.columns[reader, name] for name in (first, second) for reader in both]
        return _PairDifference(estimate, columns, design)

    def _row(
        self,
        kind: _Kind,
        first: str,
        columns: list[int],
        estimate: ClusteredEstimate,
        second: str = "",
        design: str = "",
        *,
        reader: str = "",
        comparisons: int = 1,
    ) -> StudyRow:
        low, high = estimate.interval_at(self.level) or (None, None)
        freedom = estimate.freedom_between
        cautious = 0 < freedom < FREEDOM_OF_A_CLAIM
        level_of_all = 1 - (1 - self.level) / comparisons
        p_value = None
        p_value_all = None
        low_all: float | None = None
        high_all: float | None = None
        if cautious:
            low_all, high_all = estimate.cautious_interval_at(level_of_all)
        elif kind == "difference":
            low_all, high_all = estimate.interval_at(level_of_all) or (None, None)
        if kind == "difference":
            p_value = estimate.p_value
            p_of_claim = estimate.cautious_p_value if cautious else p_value
            if p_of_claim is not None:
                p_value_all = min(1.0, comparisons * p_of_claim)
        if kind != "difference":
            low, high = self._cut_to_range(low, high)
            low_all, high_all = self._cut_to_range(low_all, high_all)
        names = list(self.columns)
        readings = [names[column] for column in columns]
        n_readers = len({reader for reader, modality in readings if modality})
        return StudyRow(
            kind=kind,
            metric=self.metric,
            first=first,
            second=second,
            reader=reader,
            estimate=estimate.estimate,
            std_error=estimate.error,
            df=estimate.freedom if np.isfinite(estimate.freedom) else None,
            ci_low=low,
            ci_high=high,
            ci_low_all=low_all,
            ci_high_all=high_all,
            p_value=p_value,
            p_value_all=p_value_all,
            freedom_between=int(freedom) or None,
            cautious=cautious,
            n_readers=n_readers,
            n_cases=max(self.counts[column] for column in columns),
            design=design,
        )

    def _cut_to_range(
        self, low: float | None, high: float | None
    ) -> tuple[float | None, float | None]:
        """Cut the interval of a figure at 0 and, if the figure cannot exceed 1, at 1."""
        if low is None or high is None:
            return low, high
        most = np.inf if self.study.metrics[self.metric].unbounded else 1.0
        return max(low, 0.0), min(high, most)


def _left_out(figure: Callable[[Integers], Floats], present: Integers, n_patients: int) -> Floats:
    """Compute a figure of all present patients, then of all but one, ``(patients + 1,)``.

    It is NaN for patients who are not present.
    """
    left_out = np.full(n_patients + 1, np.nan)
    left_out[0] = figure(np.ones((1, len(present)), dtype=np.int16))[0]
    for start in range(0, len(present), _ROWS_AT_ONCE):
        rows = np.arange(start, min(start + _ROWS_AT_ONCE, len(present)))
        weights = np.ones((len(rows), len(present)), dtype=np.int16)
        weights[np.arange(len(rows)), rows] = 0
        left_out[1 + present[rows]] = figure(weights)
    return left_out
