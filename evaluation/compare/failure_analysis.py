"""Where each system fails: groups of images, kinds of error, kinds of lesion, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.boxes.error_types import error_kinds, lesions_reached
from evaluation.boxes.iou import BoxPairs, pair_boxes
from evaluation.compare.agreement import add_agreement
from evaluation.compare.group_auroc import auroc_of_groups, combined_auroc
from evaluation.compare.judged_model import JudgedModel
from evaluation.compare.lesion_contrast import contrast_thirds
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import WHERE_COLUMNS, ShareName, Shares
from evaluation.compare.subgroups import image_groups, images_of, lesion_groups
from evaluation.compare.usefulness import add_at_prevalence, add_net_benefit
from evaluation.metrics.evaluation_set import JudgedImages
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import Floats

_PER_IMAGE = ("poor_box", "duplicate", "background")
_PER_LESION = ("found", "poorly_boxed", "missed")


def main_policy(thresholds: Sequence[str], protocol_policy: str = "") -> str:
    """The policy of everything that needs decisions and is told at one threshold only.

    Example:
        >>> main_policy(["youden", "max_f1"]), main_policy(["youden"]), main_policy([], "youden")
        ('max_f1', 'youden', 'youden')
    """
    return protocol_policy or ("max_f1" if "max_f1" in thresholds else next(iter(thresholds), ""))


def where_each_fails(
    systems: Mapping[str, Sequence[JudgedModel]],
    images: pd.DataFrame,
    resamples: Resamples,
    *,
    policy: str,
    subgroups: Sequence[str] = (),
    prevalence: float | None = None,
    contrast: Floats | None = None,
) -> pd.DataFrame:
    """Say in which groups, and in which way, each system fails.

    Args:
        systems: Per system one entry a training seed; the first is the reference.
        images: The images table.
        resamples: As for the other figures.
        policy: Threshold policy of everything that needs decisions.
        subgroups: Columns to group images by; left out: sex, age band, source and view.
        prevalence: Of positives where the systems will be used, for PPV and NPV there.
        contrast: Of each true lesion, in the order of the judged images' truth.

    Returns:
        The columns of `evaluation.compare.shares.WHERE_COLUMNS`, by topic: ``sex``, ``age_band``,
        ``source``, ``view`` and other columns (AUROC, sensitivity, specificity, localised
        sensitivity of the group), ``errors`` (of lesions; of boxes per image), ``lesion_…`` and
        ``third`` (share of lesions reached by a called box, IoU 0.2), ``right_wrong`` and
        ``agreement`` (of pairs), ``combined`` (of pairs), ``decision_curve``, ``prevalence`` and
        ``cost_curve``. Intervals, no p-values: groups are looked at, not tested.

    Raises:
        InputError: A subgroup is no column of the images.
    """
    cards = {name: [each.card for each in members] for name, members in systems.items()}
    probabilities = {name: members[0].probability for name, members in systems.items()}
    judged = next(iter(cards.values()))[0].judged
    rows = images_of(judged, images)
    groups = image_groups(rows, subgroups)
    shares = Shares(judged.n_patients, gaps=set(groups))
    for name, members in systems.items():
        _add_groups(shares, name, cards[name], groups, policy)
        _add_lesions(shares, name, members, rows, contrast)
        add_net_benefit(shares, name, members)
    add_agreement(shares, cards, policy)
    add_at_prevalence(shares, cards, policy, prevalence)
    tables = [
        shares.table(list(systems), resamples),
        auroc_of_groups(cards, groups, judged),
        combined_auroc(cards, probabilities, judged),
    ]
    kept = [table for table in tables if len(table)]
    if not kept:
        return pd.DataFrame(columns=list(WHERE_COLUMNS))
    return pd.concat(kept, ignore_index=True)[list(WHERE_COLUMNS)]


def _add_groups(
    shares: Shares,
    name: str,
    cards: Sequence[Scorecard],
    groups: Mapping[str, npt.NDArray[np.object_]],
    policy: str,
) -> None:
    judged = cards[0].judged
    called = [card.called(policy) if policy in card.thresholds else None for card in cards]
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
    shares: Shares,
    name: str,
    members: Sequence[JudgedModel],
    rows: pd.DataFrame,
    contrast: Floats | None,
) -> None:
    """Kinds of error, and lesions reached by kind of lesion, means over seeds."""
    judged = members[0].card.judged
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
    if contrast is not None:
        groups["contrast"] = contrast_thirds(contrast[truth.index])
    for topic, of_lesion in groups.items():
        for group in sorted(set(of_lesion) - {""}):
            chosen = of_lesion == group
            key = ShareName(f"lesions by {topic}", group, "", "lesion_recall")
            shares.add(name, key, reached * chosen, chosen, patients[image])


def _pairs(each: JudgedModel) -> BoxPairs | None:
    judged = each.card.judged
    if each.card.boxes is None or each.box_cut is None:
        return None
    return pair_boxes(each.card.boxes, judged.truth, judged.image_ids[judged.boxes_trusted])


def _ordered_truth(judged: JudgedImages) -> pd.DataFrame:
    """True boxes in the order in which `pair_boxes` lays them out."""
    ids = judged.image_ids[judged.boxes_trusted]
    image = ids.get_indexer(pd.Index(judged.truth["image_id"]))
    kept = judged.truth[image >= 0]
    return kept.iloc[np.argsort(image[image >= 0], kind="stable")]
