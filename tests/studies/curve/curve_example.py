"""Simulated learning-curve studies whose true curves are known."""

import numpy as np
import scipy

from cxr_compare.evaluation.statistics.intervals import Interval
from cxr_compare.studies.curve.curve_study import (
    CurveModel,
    CurveStudy,
    Difference,
    SizeFigure,
    SizePoint,
)
from cxr_compare.studies.curve.learning_curve import fit_learning_curves

NO_CUT = "its maps have no cut from validation"
SHARES = (0.125, 0.25, 0.5, 1.0)
IMAGES = np.array([54.0, 107.0, 215.0, 430.0])
POWERS = {  # a and b of the power law of 1 - figure, by metric and model
    "auroc": {"detector": (0.55, 0.18), "classifier": (2.3, 0.45), "mixed": (0.6, 0.22)},
    "average_precision": {"detector": (0.9, 0.15), "classifier": (1.6, 0.24), "mixed": (0.9, 0.17)},
    "localised_sensitivity": {"detector": (1.3, 0.2), "mixed": (1.2, 0.2)},
}


def example(
    powers=None, *, seeds=3, error=0.008, spread=0.006, draws=512, sizes=IMAGES, offset=(), **rest
):
    """Simulate a study whose true curves are known.

    `error` is the standard error of a figure over patients, correlated 0.7 between any two;
    `spread` the standard deviation between seeds; `offset` is added to the figures at each size.
    """
    rng = np.random.default_rng(7)
    sizes = np.asarray(sizes, float)
    shares = SHARES[-len(sizes) :]
    points = {}
    differences = []
    fits = {}
    for metric, models in (powers or POWERS).items():
        kinds = list(models)
        common = rng.normal(0, error * np.sqrt(0.7))
        tables = [
            np.clip(
                1
                - a * sizes[:, None] ** -b
                + common
                + (np.array(offset)[:, None] if offset else 0)
                + rng.normal(0, spread, (len(sizes), seeds)),
                0.01,
                0.995,
            )
            for a, b in models.values()
        ]
        count = len(kinds) * len(sizes) * seeds
        covariance = error**2 * (0.7 + 0.3 * np.eye(count))
        curves = fit_learning_curves([sizes] * len(kinds), tables, covariance, 150, draws=draws)
        fits[metric] = {k: c for k, c in zip(kinds, curves, strict=True) if k != "mixed"}
        reach = 1.96 * np.sqrt(error**2 + spread**2 / seeds)
        for kind, table in zip(kinds, tables, strict=True):
            for share, row in zip(shares, table, strict=True):
                mean = float(row.mean())
                figure = SizeFigure(Interval(mean, mean - reach, mean + reach), tuple(row.tolist()))
                points.setdefault((kind, share), {})[metric] = figure
        gap_error = np.sqrt(0.6 * error**2 + 2 * spread**2 / seeds)
        for first, second in (
            ("detector", "classifier"),
            ("mixed", "classifier"),
            ("mixed", "detector"),
        ):
            if first in kinds and second in kinds:
                one, other = (tables[kinds.index(kind)].mean(axis=1) for kind in (first, second))
                if (first, second) == ("mixed", "classifier"):
                    other = np.repeat(other[-1], len(other))
                for share, gap in zip(shares, (one - other).tolist(), strict=True):
                    ends = gap - 1.96 * gap_error, gap + 1.96 * gap_error
                    p = float(2 * scipy.special.ndtr(-abs(gap) / gap_error))
                    differences.append(
                        Difference(metric, share, first, second, Interval(gap, *ends), p)
                    )
    kinds = list(dict.fromkeys(kind for kind, _ in points))
    boxed = {"detector": 1.0, "classifier": 0.0, "mixed": 1.0}
    labelled = dict.fromkeys(kinds, sizes) | {"mixed": np.repeat(sizes[-1], len(sizes))}
    return CurveStudy(
        **{
            "data_set": "RSNA",
            "target": "Lung opacity",
            "folds": [f"fold-{at}" for at in range(5)],
            "n_seeds": seeds,
            "models": [CurveModel(kind, MODELS[kind][0], MODELS[kind][1]) for kind in kinds],
            "points": [
                SizePoint(
                    kind,
                    share,
                    m,
                    0.52 * n * boxed[kind],
                    n * boxed[kind],
                    0.32 * m,
                    points[kind, share],
                )
                for kind in kinds
                for share, n, m in zip(shares, sizes.tolist(), labelled[kind].tolist(), strict=True)
            ],
            "differences": differences,
            "fits": fits,
            "absent": {("localised_sensitivity", "classifier"): NO_CUT},
            "commands": ["cxr curve --detector retinanet_lite --data rsna"],
            "provenance": {"revision": "0123abc"},
            **rest,
        }
    )


MODELS = {
    "detector": ("RetinaNet lite", "retinanet_lite, 160 px, 8 epochs"),
    "classifier": ("DenseNet small", "chexnet_small, 160 px, 8 epochs"),
    "mixed": ("RetinaNet lite on the classifier's backbone", "a quarter boxed"),
}


def two_models(a, b):
    return {"auroc": {"detector": (1.0, 0.3), "classifier": (a, b)}}
