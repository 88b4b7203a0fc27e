"""The program's own functions, applied to a simulated test set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.evaluated_model import EvaluatedModel, Models
from cxr_compare.evaluation.figure_intervals import compute_figures
from cxr_compare.evaluation.figures import FIXED_CHOICE, Figure, Figures
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.paired_tests import PairTests, paired_tests
from cxr_compare.evaluation.replicates import replicates as draw_replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.calibration import Calibration, fit_calibration, fit_platt
from cxr_compare.evaluation.thresholds import POLICIES, ValidationScores, choose_threshold
from cxr_compare.evaluation.verdict.background import Background
from cxr_compare.evaluation.verdict.cautions import list_cautions
from cxr_compare.evaluation.verdict.verdict import state_verdict
from cxr_compare.evaluation.verdict.verdict_parts import AnswerContext, JointSystem, Verdict
from tools.simulation.makers import Sample

_BOXES = pd.DataFrame(columns=["image_id", "x1", "y1", "x2", "y2"])

_TOLD = ("auroc", "average_precision", "recall", "specificity", "f1", "accuracy")


def _kept(key: MetricKey) -> bool:
    """Return True for figures that sentences or a design use; others would only take time."""
    return key.metric in _TOLD


@dataclass(frozen=True)
class Evaluated:
    """Comparison of simulated systems, which are named A, B, ... in the order of their scores.

    Attributes:
        systems: Names of the systems.
        figures: Figures with intervals, and differences.
        tests: Paired tests; empty unless they were requested.
        verdict: Verdict of the comparison.
        thresholds: Thresholds by policy of each seed, by system.
        policies: Names of the policies.
    """

    systems: list[str]
    figures: Figures
    tests: pd.DataFrame
    verdict: Verdict
    thresholds: dict[str, list[dict[str, float | None]]]
    policies: tuple[str, ...]

    def p_value(self, metric: str, policy: str) -> float | None:
        """Return the p-value of the first two systems by the test that decides, by patient.

        Args:
            metric: Short name of the metric.
            policy: Name of the policy; empty for a metric without a threshold.

        Returns:
            The p-value; None if there is no such test.
        """
        if not len(self.tests):
            return None
        rows = self.tests[
            (self.tests["metric"] == metric)
            & (self.tests["policy"] == policy)
            & (self.tests["independent"] == "patients")
            & (self.tests["subgroup"] == ALL)
            & (self.tests["second"] == self.systems[1])
            & ~self.tests["method"].str.contains(FIXED_CHOICE)
        ]
        known = rows["p_value"].dropna()
        return float(known.iloc[0]) if len(known) else None

    @property
    def cautions_chance(self) -> bool:
        """Return True if the opening says that a system was not shown to beat guessing."""
        return any(caution.kind in ("chance", "below_chance") for caution in self.verdict.cautions)

    def pairs(self, metric: str, policy: str = "") -> list[Figure]:
        """Return the difference of each pair of systems.

        Args:
            metric: Short name of the metric.
            policy: Name of the policy; empty for a metric without a threshold.

        Returns:
            The differences, in the order of the systems.
        """
        names = self.systems
        return [
            self.figures.difference(first, second, metric, policy)
            for place, first in enumerate(names)
            for second in names[place + 1 :]
        ]


def evaluate(
    validation: Sample,
    test: Sample,
    seeds: Sequence[int],
    *,
    replicates: int,
    seed: int,
    policies: Sequence[str] = POLICIES,
    tested: bool = False,
    joint: JointSystem | None = None,
) -> Evaluated:
    """Compare simulated systems as ``cxr compare`` does.

    Args:
        validation: Validation images.
        test: Test images, with one row of scores for each seed of each system.
        seeds: Number of seeds of each system; their rows follow each other.
        replicates: Number of bootstrap resamples.
        seed: Random seed of the resamples.
        policies: Names of the policies.
        tested: True to compute paired tests, too.
        joint: The one of the systems that joins others; None without one.

    Returns:
        The comparison.
    """
    models = evaluated_models(validation, test, seeds, policies)
    names = list(models)
    resamples = Resamples(test.n_patients, replicates, seed)
    frames = draw_replicates(models, resamples, kept=_kept)
    figures = compute_figures("finding", models, frames, resamples)
    tests = paired_tests(figures, models) if tested else pd.DataFrame()
    counts = dict(zip(names, seeds, strict=True))
    context = AnswerContext(counts, cautions=list_cautions(Background(), figures, pd.DataFrame()))
    verdict = state_verdict(
        figures, names, "Finding", tests=PairTests(tests), context=context, joint=joint
    )
    chosen = {
        name: [
            {policy: choice.threshold for policy, choice in model.thresholds.items()}
            for model in members
        ]
        for name, members in models.items()
    }
    return Evaluated(names, figures, tests, verdict, chosen, tuple(policies))


def evaluated_images(test: Sample) -> LabelledImages:
    """Return the images of a sample as they are evaluated, without boxes.

    Args:
        test: Test images.

    Returns:
        The images with their ground truth.
    """
    return LabelledImages(
        pd.Index(np.arange(len(test.y_true)).astype(str)),
        test.y_true,
        test.patients,
        test.n_patients,
        np.ones(len(test.y_true), dtype=bool),
        _BOXES,
    )


def evaluated_models(
    validation: Sample, test: Sample, seeds: Sequence[int], policies: Sequence[str]
) -> Models:
    """Choose the thresholds of simulated systems on validation images.

    Args:
        validation: Validation images.
        test: Test images, with one row of scores for each seed of each system.
        seeds: Number of seeds of each system; their rows follow each other.
        policies: Names of the policies.

    Returns:
        Evaluated model of each seed, by system.
    """
    images = evaluated_images(test)
    names = [chr(ord("A") + place) for place in range(len(seeds))]
    models: dict[str, list[EvaluatedModel]] = {}
    row = 0
    for name, count in zip(names, seeds, strict=True):
        rows = range(row, row + count)
        models[name] = [
            EvaluatedModel(
                name,
                images,
                Output.from_scores(images.image_ids, test.scores[each]),
                _choices(validation, each, policies),
            )
            for each in rows
        ]
        row += count
    return models


def _choices(validation: Sample, row: int, policies: Sequence[str]) -> Choices:
    thresholds = {
        policy: choose_threshold(validation.y_true, validation.scores[row], policy)
        for policy in policies
    }
    chosen_on = ValidationScores(
        validation.y_true, validation.scores[row], validation.patients.astype(str)
    )
    return Choices("finding", {}, thresholds=thresholds, chosen_scores=chosen_on)


def calibrations(validation: Sample) -> dict[str, Calibration]:
    """Fit calibrations on validation images.

    Args:
        validation: Validation images with one row of scores.

    Returns:
        Calibrations by method; ``default`` is the one that ``cxr tune`` fits by default.
    """
    known = (validation.y_true, validation.scores[0])
    found = {
        "platt": fit_calibration("platt", *known),
        "isotonic": fit_calibration("isotonic", *known),
        "default": fit_platt(*known),
    }
    return {kind: fitted for kind, fitted in found.items() if fitted is not None}
