"""Where each system fails: groups of images, kinds of error, kinds of lesion, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.boxes.error_types import error_kinds, lesions_reached
from evaluation.boxes.iou import BoxPairs, pair_boxes
from evaluation.compare.baselines import shortcut_rows
from evaluation.compare.judged_model import ComparisonTask, JudgedModel, scorecards
from evaluation.compare.paired_tests import OBUCHOWSKI
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import (
    FAILURE_COLUMNS,
    ShareName,
    Shares,
    add_agreement,
    add_at_prevalence,
    add_net_benefit,
    check_prevalence,
)
from evaluation.compare.subgroups import image_groups, images_of, lesion_groups
from evaluation.metrics.evaluation_set import EvaluationSet
from evaluation.statistics.auroc_variance import (
    FEW_PATIENTS,
    AurocParts,
    ClusteredEstimate,
    SeedSpread,
    add_seeds,
    auroc_parts,
    mean_parts,
)
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import Floats


def _auroc_of_groups(
    cards: Mapping[str, Sequence[Scorecard]],
    groups: Mapping[str, npt.NDArray[np.object_]],
    judged: EvaluationSet,
) -> pd.DataFrame:
    """AUROC in every group, its paired difference between systems, and its gap to the rest.

    Source:
        Obuchowski 1997; the variance of a gap sums what a patient adds to either group. That
        between training seeds is added, as in `evaluation.statistics.auroc_variance.add_seeds`.
    """
    rows = []
    for topic, of_image in groups.items():
        for group in sorted(set(of_image) - {""}):
            inside = of_image == group
            outside = ~inside & (of_image != "")
            parts = {name: _parts(members, judged, inside) for name, members in cards.items()}
            rest = {name: _parts(members, judged, outside) for name, members in cards.items()}
            known = {name: part for name, part in parts.items() if part is not None}
            count = int((judged.y_true & inside).sum()), int(inside.sum())
            held = len(np.unique(judged.patients[inside]))
            of = {"topic": topic, "group": group}
            for name, part in known.items():
                rows.append(_estimated(part.estimate(), name, of, (*count, held)))
            first = next(iter(cards))
            for second in list(cards)[1:]:
                if first in known and second in known:
                    gap = known[first].minus(known[second])
                    rows.append(_estimated(gap, f"{first} - {second}", of, (*count, held)))
            for name, part in known.items():
                other = rest[name]
                if other is not None:
                    gap = _between_groups(part, other, judged.n_patients)
                    named = of | {"group": f"{group} - rest"}
                    rows.append(_estimated(gap, name, named, (None, None, None)))
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


@dataclass(frozen=True)
class _OfSeeds:
    """The mean over a system's training seeds, and the AUROC of each."""

    mean: AurocParts
    each: tuple[float, ...]

    def estimate(self) -> ClusteredEstimate:
        return self.mean.estimate(SeedSpread.of(self.each))

    def minus(self, other: _OfSeeds) -> ClusteredEstimate:
        """The difference from another system, whose seeds are others."""
        spread = SeedSpread.of(self.each) + SeedSpread.of(other.each)
        return (self.mean - other.mean).estimate(spread)


def _parts(
    members: Sequence[Scorecard], judged: EvaluationSet, chosen: npt.NDArray[np.bool_]
) -> _OfSeeds | None:
    each = [
        auroc_parts(
            judged.y_true[chosen], card.scores[chosen], judged.patients[chosen], judged.n_patients
        )
        for card in members
    ]
    known = [part for part in each if part is not None]
    if not known or len(known) < len(each):
        return None
    return _OfSeeds(mean_parts(known), tuple(part.value for part in known))


def _between_groups(one: _OfSeeds, other: _OfSeeds, n_patients: int) -> ClusteredEstimate:
    """Difference of the AUROCs of two groups of images; a patient may be in both.

    A seed is one training in both groups, so it is the gap that differs between seeds.
    """
    value = one.mean.value - other.mean.value
    if one.mean.variance is None or other.mean.variance is None:
        return ClusteredEstimate(value, None, note=FEW_PATIENTS)
    sums = one.mean.sums - other.mean.sums
    variance = float((sums**2).sum()) * n_patients / max(n_patients - 1, 1)
    gaps = [inside - rest for inside, rest in zip(one.each, other.each, strict=True)]
    total, freedom = add_seeds(variance, n_patients - 1, SeedSpread.of(gaps))
    return ClusteredEstimate(value, float(np.sqrt(total)) if total > 0 else None, freedom)


def _estimated(
    estimate: ClusteredEstimate,
    system: str,
    of: Mapping[str, str],
    counts: tuple[int | None, int | None, int | None],
) -> dict[str, Any]:
    low, high = estimate.interval or (np.nan, np.nan)
    return {
        **of,
        "system": system,
        "policy": "",
        "metric": "auroc",
        "estimate": estimate.value,
        "ci_low": low,
        "ci_high": high,
        "ci_method": "" if np.isnan(low) else OBUCHOWSKI,
        "count": counts[0],
        "of": counts[1],
        "n_patients": counts[2],
        "note": estimate.note,
    }


def _combined_auroc(
    cards: Mapping[str, Sequence[Scorecard]],
    probabilities: Mapping[str, Floats | None],
    judged: EvaluationSet,
) -> pd.DataFrame:
    """AUROC of the mean probability of two systems, and what it gains over each of them."""
    rows = []
    of = {"topic": "combined", "group": ""}
    counts = int(judged.y_true.sum()), len(judged.y_true), judged.n_patients
    for pair in combinations(cards, 2):
        one, two = (probabilities[name] for name in pair)
        if one is None or two is None:
            continue
        joined = auroc_parts(judged.y_true, (one + two) / 2, judged.patients, judged.n_patients)
        if joined is None:
            continue
        named = f"mean of {pair[0]} and {pair[1]}"
        rows.append(_estimated(joined.estimate(), named, of, counts))
        for name in pair:
            scores = cards[name][0].scores
            alone = auroc_parts(judged.y_true, scores, judged.patients, judged.n_patients)
            if alone is not None:
                gain = (joined - alone).estimate()
                rows.append(_estimated(gain, f"{named} - {name}", of, counts))
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


_PER_IMAGE = ("poor_box", "duplicate", "background")
_PER_LESION = ("found", "poorly_boxed", "missed")


def main_policy(thresholds: Sequence[str], protocol_policy: str = "") -> str:
    """The policy of everything that needs decisions and is given at one threshold only.

    Example:
        >>> main_policy(["youden", "max_f1"]), main_policy(["youden"]), main_policy([], "youden")
        ('max_f1', 'youden', 'youden')
    """
    return protocol_policy or ("max_f1" if "max_f1" in thresholds else next(iter(thresholds), ""))


def check_analysis(
    images: pd.DataFrame, subgroups: Sequence[str], prevalence: float | None
) -> None:
    """Refuse what cannot be analysed, before the work."""
    check_prevalence(prevalence)
    image_groups(images, subgroups)


def failure_table(
    models: Mapping[str, Sequence[JudgedModel]],
    judged: EvaluationSet,
    task: ComparisonTask,
    prevalence: float | None,
    resamples: Resamples,
) -> pd.DataFrame:
    """Where each system fails, with the shortcut baseline beside."""
    cards, protocol = scorecards(models), task.protocol
    table = _where_each_fails(
        cards,
        task.dataset.images,
        resamples,
        policy=main_policy(list(next(iter(cards.values()))[0].thresholds), protocol.policy),
        subgroups=protocol.subgroups,
        prevalence=prevalence,
    )
    return pd.concat([table, shortcut_rows(task.dataset, task.target, judged)], ignore_index=True)


def _where_each_fails(
    cards: Mapping[str, Sequence[Scorecard]],
    images: pd.DataFrame,
    resamples: Resamples,
    *,
    policy: str,
    subgroups: Sequence[str] = (),
    prevalence: float | None = None,
) -> pd.DataFrame:
    """Say in which groups, and in which way, each system fails."""
    probabilities = {name: members[0].probability for name, members in cards.items()}
    judged = next(iter(cards.values()))[0].judged
    rows = images_of(judged, images)
    groups = image_groups(rows, subgroups)
    shares = Shares(judged.n_patients, gaps=set(groups))
    for name, members in cards.items():
        _add_groups(shares, name, members, groups, policy)
        _add_lesions(shares, name, members, rows)
        add_net_benefit(shares, name, members)
    add_agreement(shares, cards, policy)
    add_at_prevalence(shares, cards, policy, prevalence)
    tables = [
        shares.table(list(cards), resamples),
        _auroc_of_groups(cards, groups, judged),
        _combined_auroc(cards, probabilities, judged),
    ]
    kept = [table for table in tables if len(table)]
    if not kept:
        return pd.DataFrame(columns=list(FAILURE_COLUMNS))
    return pd.concat(kept, ignore_index=True)[list(FAILURE_COLUMNS)]


def _add_groups(
    shares: Shares,
    name: str,
    cards: Sequence[Scorecard],
    groups: Mapping[str, npt.NDArray[np.object_]],
    policy: str,
) -> None:
    judged = cards[0].judged
    called = [card.called(policy) for card in cards]
    known = [each for each in called if each is not None]
    if len(known) < len(cards):
        return
    positive = np.mean(known, axis=0)  # over seeds
    boxed = judged.y_true & judged.boxes_trusted
    figures: dict[str, tuple[Floats, npt.NDArray[np.bool_]]] = {
        "recall": (positive, judged.y_true),
        "specificity": (1 - positive, ~judged.y_true),
    }
    placed = [card.localised for card in cards if card.localised is not None]
    if len(placed) == len(cards):
        found = [call & place for call, place in zip(known, placed, strict=True)]
        figures["localised_sensitivity"] = (np.mean(found, axis=0), boxed)
    for topic, of_image in groups.items():
        for group in sorted(set(of_image) - {""}):
            inside = of_image == group
            outside = ~inside & (of_image != "")
            for metric, (value, of) in figures.items():
                for chosen, called_ in ((inside, group), (outside, f"not {group}")):
                    mask = of & chosen
                    key = ShareName(topic, called_, policy, metric)
                    shares.add(name, key, value * mask, mask, judged.patients)


def _add_lesions(
    shares: Shares, name: str, members: Sequence[Scorecard], rows: pd.DataFrame
) -> None:
    """Kinds of error, and lesions reached by kind of lesion, means over seeds."""
    judged = members[0].judged
    pairs = [_pairs(each) for each in members]
    known = [(p, each.box_cut) for p, each in zip(pairs, members, strict=True) if p is not None]
    if len(known) < len(members) or not known[0][0].n_true.sum():
        return
    patients = judged.patients[judged.boxes_trusted]
    kinds = [error_kinds(p, cut) for p, cut in known if cut is not None]
    mean = {kind: np.mean([each[kind] for each in kinds], axis=0) for kind in kinds[0]}
    ones = np.ones(len(patients))
    for kind in (*_PER_LESION, *_PER_IMAGE):
        of = mean["lesions"] if kind in _PER_LESION else ones
        shares.add(name, ShareName("errors", "", "", kind), mean[kind], of, patients)
    reached = np.mean([lesions_reached(p, cut) for p, cut in known if cut is not None], axis=0)
    first = known[0][0]
    image = first.true_image
    truth = _ordered_truth(judged)
    trusted = rows[judged.boxes_trusted].reset_index(drop=True)
    groups = lesion_groups(truth, image, trusted)
    for topic, of_lesion in groups.items():
        for group in sorted(set(of_lesion) - {""}):
            chosen = of_lesion == group
            key = ShareName(f"lesions by {topic}", group, "", "lesion_recall")
            shares.add(name, key, reached * chosen, chosen, patients[image])


def _pairs(card: Scorecard) -> BoxPairs | None:
    judged = card.judged
    if card.boxes is None or card.box_cut is None:
        return None
    return pair_boxes(card.boxes, judged.truth, judged.image_ids[judged.boxes_trusted])


def _ordered_truth(judged: EvaluationSet) -> pd.DataFrame:
    """True boxes in the order in which `pair_boxes` lays them out."""
    ids = judged.image_ids[judged.boxes_trusted]
    image = ids.get_indexer(pd.Index(judged.truth["image_id"]))
    kept = judged.truth[image >= 0]
    return kept.iloc[np.argsort(image[image >= 0], kind="stable")]
