"""The file that marks the analysis of a reader study as complete."""

from __future__ import annotations

from cxr_compare.data_prep.contracts.records import Record


class VarianceComponents(Record):
    """Variance of the readers' figures in a multi-reader, multi-case study, by its causes.

    A figure is, for example, the AUROC of one reader (radiologist) who is aided by one system. The
    components are those of the Obuchowski-Rockette model.

    Attributes:
        reader: Variance between readers.
        interaction: Variance between readers in the difference that a system makes to their
            figures.
        cov1: Covariance, over repeated samples of cases, of the figures with two systems of the
            same reader.
        cov2: Covariance, over repeated samples of cases, of the figures of two readers with the
            same system.
        cov3: Covariance, over repeated samples of cases, of the figures of two readers with
            different systems.
        error: Variance, over repeated samples of cases, of the figure of one reader with one
            system.
    """

    reader: float
    interaction: float
    cov1: float
    cov2: float
    cov3: float
    error: float


class CrossedAnalysis(Record, extra="ignore"):
    """Analysis of one figure of a reader study in which every reader read every case.

    The components are None if they were not estimated.
    """

    components: VarianceComponents | None = None


class ReadersRecord(Record, kind="readers", extra="ignore"):
    """What a plan reads of ``readers.json``, the results of a reader study.

    `primary` is the figure, declared before the study, that decides its main question. The analyses
    are by name of the figure; None if not every reader read every case.
    """

    primary: str
    n_positive: int
    n_cases: int
    crossed: dict[str, CrossedAnalysis | None]
