"""From boxes to one score per image, and from several findings to one target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from data_prep.contracts.errors import InputError
from evaluation.statistics.calibration import clipped_logit
from evaluation.statistics.logistic import fit_logistic, sigmoid
from evaluation.statistics.ranking import Floats, Integers

if TYPE_CHECKING:
    import pandas as pd

Rule = Literal["max", "noisy_or", "top_k", "learned"]
_TOP_K = 3
_COUNT_FLOORS = (0.05, 0.2)
"""Scores from which a learned rule counts boxes."""


@dataclass(frozen=True)
class Reduction:
    """A reduction rule with its setting.

    Attributes:
        rule: How the box scores of an image combine.
        min_score: Boxes below it do not take part (noisy-or over 300 boxes at 0.01 is 0.95).
        weights: Of a learned rule: the intercept, then one per column of `_box_features`.
    """

    rule: Rule
    min_score: float = 0.0
    weights: tuple[float, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For ``decisions/<target>.json``."""
        facts = {"rule": self.rule, "min_score": self.min_score}
        return facts | {"weights": list(self.weights)} if self.weights else facts

    @classmethod
    def from_json(cls, payload: dict[str, Any] | None) -> Reduction | None:
        """Read what `to_json` wrote."""
        if not payload:
            return None
        return cls(payload["rule"], payload["min_score"], tuple(payload.get("weights", ())))

    def reduce(self, rows: Integers, scores: Floats, n_images: int) -> Floats:
        """One score per image, shape ``(n_images,)``; see `reduce_boxes`.

        Args:
            rows: Image of each box as an index from 0, shape ``(N,)``.
            scores: In [0, 1], shape ``(N,)``.
            n_images: Images under evaluation.

        Raises:
            InputError: A learned rule has not as many weights as features.

        Example:
            >>> Reduction("noisy_or").reduce(np.array([1, 1]), np.array([0.5, 0.75]), 2).tolist()
            [0.0, 0.875]
        """
        # By image, the most confident box first: the result cannot depend on the order of rows.
        order = np.lexsort((-scores, rows))
        rows, scores = rows[order], scores[order]
        if self.rule != "learned":
            return reduce_ranked(rows, scores, n_images, rule=self.rule, min_score=self.min_score)
        features = _ranked_features(rows, scores, n_images)
        if len(self.weights) != features.shape[1] + 1:
            raise InputError(
                f"a learned reduction needs {features.shape[1] + 1} weights, got "
                f"{len(self.weights)}"
            )
        reduced = sigmoid(self.weights[0] + features @ np.array(self.weights[1:]))
        reduced[np.bincount(rows, minlength=n_images) == 0] = 0.0
        return reduced


CANDIDATES = (
    Reduction("max"),
    Reduction("top_k"),
    *(Reduction("noisy_or", floor) for floor in (0.3, 0.2, 0.1, 0.05, 0.02, 0.01)),
)
"""What validation chooses from, the simpler first: among equals the earlier wins."""


def reduce_boxes(
    boxes: pd.DataFrame,
    image_ids: pd.Index,
    *,
    rule: Rule = "max",
    min_score: float = 0.0,
    weights: tuple[float, ...] = (),
) -> pd.Series:
    """Reduce lesion boxes to one score per image.

    ``max`` takes the most confident box; ``noisy_or`` takes ``1 - prod(1 - score)``; ``top_k``
    is the sum of the three most confident scores divided by three, so that missing boxes count 0;
    ``learned`` is logistic in `_box_features`. An image without boxes scores 0.

    Args:
        boxes: Predicted boxes; reads ``image_id`` and ``score`` (in [0, 1]). May be empty.
        image_ids: Every image under evaluation, unique, shape ``(N,)``.
        rule: How box scores combine.
        min_score: Boxes with a lower score are left out first.
        weights: Of a learned rule; see `Reduction`.

    Returns:
        Scores in [0, 1], float64, shape ``(N,)``, in the order of ``image_ids``.

    Raises:
        InputError: An id repeats, a box belongs to no image in ``image_ids``, a score lies
            outside [0, 1], or the rule is unknown.

    Source:
        ``max``: the multiple-instance assumption, Dietterich et al. 1997.

    Example:
        >>> import pandas as pd
        >>> boxes = pd.DataFrame({"image_id": ["a", "a"], "score": [0.5, 0.75]})
        >>> reduce_boxes(boxes, pd.Index(["a", "b"]), rule="noisy_or").tolist()
        [0.875, 0.0]
        >>> reduce_boxes(boxes, pd.Index(["a", "b"]), rule="top_k").round(4).tolist()
        [0.4167, 0.0]
    """
    import pandas as pd

    if rule not in get_args(Rule):
        raise InputError(f"unknown reduction rule {rule!r}: use {', '.join(get_args(Rule))}")
    rows, scores = _rows_and_scores(boxes, image_ids)
    reduced = Reduction(rule, min_score, weights).reduce(rows, scores, len(image_ids))
    return pd.Series(reduced, index=image_ids, name="score")


def _box_features(boxes: pd.DataFrame, image_ids: pd.Index) -> Floats:
    """What a learned rule sees of each image.

    Example:
        >>> import pandas as pd
        >>> boxes = pd.DataFrame({"image_id": ["a", "a"], "score": [0.5, 0.1]})
        >>> _box_features(boxes, pd.Index(["a"])).round(2).tolist()
        [[0.0, -2.2, -9.21, 1.1, 0.69]]
    """
    rows, scores = _rows_and_scores(boxes, image_ids)
    order = np.lexsort((-scores, rows))
    return _ranked_features(rows[order], scores[order], len(image_ids))


def _ranked_features(rows: Integers, scores: Floats, n_images: int) -> Floats:
    """`_box_features` of boxes that are sorted already, as in `reduce_ranked`."""
    top = np.zeros((n_images, _TOP_K))
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows, side="left")
    first = rank < _TOP_K
    top[rows[first], rank[first]] = scores[first]
    counts = [np.bincount(rows[scores >= floor], minlength=n_images) for floor in _COUNT_FLOORS]
    return np.column_stack([clipped_logit(top), np.log1p(np.column_stack(counts))])


def reduce_ranked(
    rows: Integers, scores: Floats, n_images: int, *, rule: Rule, min_score: float = 0.0
) -> Floats:
    """Reduce boxes that are sorted already; see `reduce_boxes`.

    Example:
        >>> reduce_ranked(np.array([1, 1]), np.array([0.75, 0.5]), 2, rule="max").tolist()
        [0.0, 0.75]
    """
    used = scores >= min_score
    rows, scores = rows[used], scores[used]
    reduced = np.zeros(n_images)
    if not len(rows):
        return reduced
    starts = np.flatnonzero(np.append(True, rows[1:] != rows[:-1]))
    if rule == "max":
        reduced[rows[starts]] = scores[starts]
    elif rule == "noisy_or":
        reduced[rows[starts]] = 1.0 - np.multiply.reduceat(1.0 - scores, starts)
    else:
        rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
        top = rank < _TOP_K
        reduced = np.bincount(rows[top], scores[top], minlength=n_images) / _TOP_K
    return reduced


def _rows_and_scores(boxes: pd.DataFrame, image_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Position of each box's image in `image_ids`, and its score, both checked."""
    from data_prep.contracts.text_lookup import positions

    if not image_ids.is_unique:
        repeated = image_ids[image_ids.duplicated()][0]
        raise InputError(f"image ids must be unique; {repeated!r} repeats")
    rows = positions(boxes["image_id"], image_ids)
    if (rows < 0).any():
        unknown = boxes["image_id"].iloc[int(np.flatnonzero(rows < 0)[0])]
        raise InputError(f"boxes: image {unknown!r} is not among the images under evaluation")
    scores = boxes["score"].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~((scores >= 0) & (scores <= 1)))
    if wrong.size:
        raise InputError(
            f"boxes: score must be in [0, 1]; row {wrong[0]}, image "
            f"{boxes['image_id'].iloc[int(wrong[0])]!r}: score={scores[wrong[0]]}"
        )
    return rows, scores


def combine_findings(
    scores: pd.DataFrame, image_ids: pd.Index, findings: tuple[str, ...]
) -> pd.Series:
    """One score per image from the scores of a target's findings: the highest of them.

    Example:
        >>> import pandas as pd
        >>> rows = pd.DataFrame({"image_id": ["a", "a"], "finding": ["x", "y"], "score": [0.1, 1]})
        >>> combine_findings(rows, pd.Index(["a"]), ("x", "y")).tolist()
        [1.0]
    """
    members = scores[scores["finding"].isin(findings)]
    highest = members.groupby("image_id")["score"].max()
    return highest.reindex(image_ids).astype(np.float64).rename("score")


_STRENGTH = 1.0  # of the ridge penalty on standardised features, as scikit-learn's default


def _fit_learned(features: Floats, y_true: npt.NDArray[np.bool_]) -> Reduction:
    """Fit the rule.

    Example:
        >>> features = np.array([[-2.0, 0.0], [2.0, 0.0]] * 20)
        >>> _fit_learned(features, np.array([False, True] * 20)).weights[1] > 0
        True
    """
    if not y_true.any() or y_true.all():
        raise InputError("--reduction learned: needs positive and negative images in each fold")
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)
    design = np.column_stack([np.ones(len(features)), (features - mean) / scale])
    ridge = np.append(0.0, np.full(features.shape[1], _STRENGTH))
    fit = fit_logistic(
        design, np.ones((1, len(features))), design[y_true].sum(axis=0)[None], ridge=ridge
    )
    weights = fit.coefficients[0, 1:] / scale
    intercept = float(fit.coefficients[0, 0] - weights @ mean)
    return Reduction("learned", weights=(intercept, *(float(w) for w in weights)))


def cross_fit(
    boxes: pd.DataFrame, y_true: pd.Series, folds: Integers
) -> tuple[Reduction, npt.NDArray[np.float64]]:
    """Learn the rule on all images, and score each fold by what the others taught.

    Source:
        The cross-fitted score is that of stacked generalisation, Wolpert 1992.
    """
    ids, truth = y_true.index, y_true.to_numpy() == 1
    features = _box_features(boxes, ids)
    unseen = np.zeros(len(ids))
    for fold in np.unique(folds):
        held = folds == fold
        rule = _fit_learned(features[~held], truth[~held])
        scored = reduce_boxes(
            boxes[boxes["image_id"].isin(ids[held])],
            ids[held],
            rule="learned",
            weights=rule.weights,
        )
        unseen[held] = scored.to_numpy()
    return _fit_learned(features, truth), unseen


def words_of(weights: tuple[float, ...]) -> str:
    """What each weight is for, in words.

    Example:
        >>> words_of((0.5, 1.0, 0.0, 0.0, 0.25, -0.5)).split(", ")[:2]
        ['intercept 0.50', 'log-odds of box 1: 1.00']
    """
    names = [f"log-odds of box {rank}: " for rank in range(1, _TOP_K + 1)]
    names += [f"log(1 + boxes from {floor:g}): " for floor in _COUNT_FLOORS]
    words = [f"{name}{weight:.2f}" for name, weight in zip(names, weights[1:], strict=True)]
    return (
        ", ".join([f"intercept {weights[0]:.2f}", *words])
        .replace("-", "−")
        .replace("log−odds", "log-odds")
    )
