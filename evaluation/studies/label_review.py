"""Labels and boxes of a data set that should be looked at again, ranked by doubt.

A system is used only on images that it never learned from, and whose patients it never learned
from. Each kind of doubt has its own ranking. The table contains the first row of each ranking, then
the second row of each, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.duplicates.dataset_copies import find_dataset_copies
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.boxes.lesion_hits import find_lesions
from cxr_compare.evaluation.boxes.matching import pair_boxes
from cxr_compare.evaluation.decisions.system_output import SystemOutput
from cxr_compare.evaluation.report.cases import read_systems
from cxr_compare.evaluation.report.drawn_case import DrawnCase
from cxr_compare.evaluation.statistics.calibration import fit_calibration
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.studies.reader_agreement import ReaderAgreement
from cxr_compare.evaluation.studies.study_page import StudyPage, write_study
from cxr_compare.evaluation.studies.study_sentences import study_sentence
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.stored_predictions import read_output

_SHOWN = 40


_IMAGE_BYTES = 60_000  # largest size of an image on the page, in bytes


_LABELS = {1.0: "positive", 0.0: "negative"}


_COLUMNS = ["image_id", "kind", "reason", "doubt", "probability", "score", *EDGES]


def _sentence(macro: str, *values: Any) -> str:
    return study_sentence("label_review", macro, *values)


def review_labels(dataset: DataSet, target: Target, systems: Sequence[Predictions]) -> str:
    """List the labels and boxes of a data set that are probably wrong, for a second look.

    The list is written into the data set folder as ``label_review.csv``, ``label_review.json`` and
    ``label_review.html``. It has labels and boxes that disagree with trained models; only models
    that are shown to be better than chance, on images that they were not trained on, are used. It
    also has copies of an image with two different labels, and images on which human readers differ,
    for which no model is needed. Each of these kinds of doubt is ranked; the list begins with the
    first of each ranking.

    Args:
        dataset: Data set; the files are written into its folder.
        target: Finding, such as lung opacity, whose labels are reviewed.
        systems: Predictions of models on the images of the data set; may be empty.

    Returns:
        Summary of the list, for the terminal.

    Raises:
        InputError: A model has no predictions on positive and on negative images that it was not
            trained on.
    """
    by_name: dict[str, list[_Unseen]] = {}
    for system in systems:
        by_name.setdefault(system.name, []).append(
            _Unseen.from_predictions(system, dataset, target)
        )
    evaluated = {name: _evaluate(name, runs, dataset) for name, runs in by_name.items()}
    used = [run for name, runs in by_name.items() if evaluated[name].sound for run in runs]
    readers = ReaderAgreement.from_dataset(dataset, target)
    labels = dataset.labels(target).dropna()
    boxed = dataset.boxes_trusted(target)
    rows = [_copies(dataset, labels), _disputed(readers), _doubtful(labels, used)]
    for run in used:
        if run.output.gives_boxes:
            ids = boxed.intersection(run.output.image_ids)
            rows += run.boxes(ids)
            boxed = boxed.difference(ids)
    table = _ranked(pd.concat(rows), dataset, labels)
    counts = {str(kind): int(n) for kind, n in table["kind"].value_counts(sort=False).items()}
    kinds = _sentence("kinds", counts)
    reviewable = labels.index.union(readers.ratings.dropna(how="all").index)
    answer = _sentence("answer", table["image_id"].nunique(), len(reviewable))
    made_with = _sentence("systems", {name: len(runs) for name, runs in by_name.items()})
    earlier = _earlier_systems(dataset) or made_with
    html = StudyPage(dataset.name, target.display_name, answer).render(
        "label_review.html.jinja",
        name=dataset.name,
        kinds=kinds,
        finding=target.display_name,
        answer=answer,
        n_rows=len(table),
        readers=readers,
        cards=list(_cards(table, used, LabelledSplit(dataset, target))),
        evaluated=evaluated.values(),
        unknown=[system.name for system in systems if system.seen is None],
    )
    facts = {"answer": answer, "counts": counts, "alpha": readers.alpha, "by": made_with}
    path = write_study(dataset.folder, "label_review", table, facts, html)
    replaced = earlier if earlier != made_with else ""
    lines = [_sentence("summary", answer, kinds)]
    lines += [evaluation.text for evaluation in evaluated.values()]
    lines.append(_sentence("page", path, replaced))
    return "\n".join(lines)


def _earlier_systems(dataset: DataSet) -> str:
    """Return the systems of the stored list; empty if there is no list, or if it is damaged."""
    with suppress(OSError, ValueError, AttributeError):
        stored = json.loads((dataset.folder / "label_review.json").read_text())
        return str(stored.get("by", ""))
    return ""


class _Evaluation(NamedTuple):
    """Evaluation of a system on images that it never learned from.

    Attributes:
        text: Sentence with the AUROC.
        sound: True if the system is shown to be better than chance.
    """

    text: str
    sound: bool


@dataclass(frozen=True)
class _Unseen:
    """Output of a system on labelled images that it has not learned from."""

    test_set: LabelledSplit
    predictions: Predictions
    output: SystemOutput

    @classmethod
    def from_predictions(cls, system: Predictions, dataset: DataSet, target: Target) -> _Unseen:
        """Read a system's output, without images that it has seen, their patients and copies."""
        test_set = LabelledSplit(dataset, target, system.info["data_set"].get("split", "default"))
        ran = test_set.labels.dropna().index.intersection(system.images_run)
        unseen = ran.difference(test_set.seen_by(system, ran).all_ids)
        if test_set.labels[unseen].nunique() < 2:
            raise InputError(
                f"{system.folder}: {system.name} ran on no images of both labels that it has not "
                "learned from; give the runs of a cross-validation (cxr split --folds)"
            )
        return cls(test_set, system, read_output(system, test_set.target, unseen))

    def boxes(self, ids: pd.Index) -> list[pd.DataFrame]:
        """Return drawn boxes with little support, and the strongest boxes that no reader drew."""
        found = self.output.predicted_boxes
        pairs = pair_boxes(found[found["image_id"].isin(ids)], self.test_set.true_boxes, ids)
        finds = find_lesions(pairs)
        support = np.maximum(finds.best, 0)
        score = pairs.boxes.score
        usual = float(np.median(support[support > 0])) if support.any() else np.inf
        alone = finds.false & (score >= usual)
        name = self.predictions.name
        tables = []
        for kind, boxes, scores, doubt in (
            ("unsupported_box", pairs.truth, support, 1 - support),
            ("missing_box", pairs.boxes, score, score),
        ):
            rows = pd.DataFrame(boxes.corners, columns=EDGES)
            tables.append(
                rows.assign(
                    image_id=ids[boxes.image],
                    kind=kind.replace("_", " "),
                    score=scores,
                    doubt=doubt,
                    reason=[_sentence(kind, name, value, usual) for value in scores],
                )
            )
        drawn, missed = tables
        return [drawn[support < usual], missed[alone].drop_duplicates("image_id")]


def _evaluate(name: str, runs: Sequence[_Unseen], dataset: DataSet) -> _Evaluation:
    """Evaluate how well a system ranks images that it never learned from."""
    scores = pd.concat([run.output.scores(None) for run in runs])
    labels = [run.test_set.labels[run.output.image_ids] for run in runs]
    truth = np.concatenate(labels) == 1
    patients = dataset.images.set_index("image_id")["patient_id"][scores.index]
    folds = np.repeat(np.arange(len(runs)), [len(run.output.image_ids) for run in runs])
    # Scores are compared only between images of the same run.
    parts = auroc_parts(truth, scores, pd.factorize(patients)[0], len(scores), folds=folds)
    value = np.nan
    interval = None
    if parts:
        value = parts.value
        interval = parts.estimate().interval
    low, high = interval or (0.0, 1.0)
    sound = low > 0.5
    text = _sentence("evaluation", name, value, low, high, len(scores), int(truth.sum()), sound)
    return _Evaluation(text, sound)


def _copies(dataset: DataSet, labels: pd.Series) -> pd.DataFrame:
    """Return images with an equal or near copy that has the other label."""
    decode = dataset.optional_table("decode")
    keys = find_dataset_copies(dataset, decode).copy_keys(decode)
    differing = labels[labels.groupby(keys).transform("nunique") > 1].map(_LABELS)
    reason = differing.map(lambda label: _sentence("contradicted_copy", label))
    table = pd.DataFrame({"reason": reason, "doubt": 1.0, "kind": "contradicted copy"})
    return table.rename_axis("image_id").reset_index()


def _disputed(readers: ReaderAgreement) -> pd.DataFrame:
    """Return images on which readers differ, the most evenly divided ones first.

    Among equally divided ones, those with the largest boxes come first.
    """
    rows = []
    boxes = readers.lesions([*readers.boxes])
    area = ((boxes["x2"] - boxes["x1"]) * (boxes["y2"] - boxes["y1"])).groupby(boxes["image_id"])
    ratings = readers.ratings[readers.ratings.nunique(axis=1) > 1]
    largest = area.max().reindex(ratings.index).sort_values(ascending=False, kind="stable")
    for image_id, labels in ratings.loc[largest.index].iterrows():
        sides = {name: [*labels.index[labels == value]] for value, name in _LABELS.items()}
        doubt = min(map(len, sides.values())) / labels.count()
        rows.append((image_id, "disputed label", _sentence("disputed_label", sides), doubt))
    for image_id, drawn in boxes.groupby("image_id"):
        counts = drawn["reader"].value_counts(sort=False)
        alone = drawn["drawn_by"] == 1
        if len(counts) > 1 and alone.any():
            by_reader = {str(name): int(n) for name, n in counts.items()}
            text = _sentence("disputed_box", by_reader, int(alone.sum()), len(drawn))
            rows.append((image_id, "disputed box", text, alone.mean()))
    return pd.DataFrame(rows, columns=_COLUMNS[:4])


def _doubtful(labels: pd.Series, used: Sequence[_Unseen]) -> pd.DataFrame:
    """Return labels that are less likely than the other label, by systems that never saw the image.

    The probability of the other label must reach its mean over the images that have this label, and
    no system's decision may agree with the label as given. The doubt is 1 minus the probability of
    the label as given.

    Source:
        Northcutt, Jiang and Chuang 2021, Confident Learning: self-confidence, thresholds by class.
    """
    chances = [pd.Series(dtype=float)]
    agree = pd.Index([])
    for each in used:
        scores = each.output.scores(None)
        system = each.predictions
        by_name = {system.name: system}
        ids = scores.index.tolist()
        output = read_systems(by_name, each.test_set, ids, policy="max_f1").systems[0]
        agrees = (output.decisions["decision"] == labels[ids]).fillna(False)
        fitted = fit_calibration("platt", labels[scores.index] == 1, scores)
        chances.append(pd.Series(fitted.probability(scores) if fitted else np.nan, scores.index))
        agree = agree.union(agrees.index[agrees])
    chance = pd.concat(chances, axis=1).mean(axis=1)
    stated = labels.reindex(chance.index)
    usual = stated.map({0.0: chance[stated == 1].mean(), 1.0: chance[stated == 0].mean()})
    beyond = (chance >= usual).where(stated == 0, chance <= usual) & ~chance.index.isin(agree)
    table = pd.DataFrame({"doubt": chance.where(stated == 0, 1 - chance), "probability": chance})
    table = table.assign(kind="doubtful label", given=stated.map(_LABELS), usual=usual)
    table = table[(table["doubt"] >= 0.5) & beyond].rename_axis("image_id").reset_index()
    columns = (table[name] for name in ("given", "probability", "usual"))
    reasons = [_sentence("doubtful_label", *values) for values in zip(*columns, strict=True)]
    return table.assign(reason=reasons)


def _ranked(rows: pd.DataFrame, dataset: DataSet, labels: pd.Series) -> pd.DataFrame:
    """Join the kinds of doubt: the first row of each kind, then the second row of each."""
    rows = rows.reindex(columns=_COLUMNS).astype({"doubt": "float64"})
    rows = rows.sort_values("doubt", ascending=False, kind="stable")
    rows = rows.iloc[np.argsort(rows.groupby("kind").cumcount(), kind="stable")]
    rows.insert(0, "rank", np.arange(1, len(rows) + 1))
    facts = dataset.images.set_index("image_id")[["patient_id", "path"]]
    rows = rows.assign(label=rows["image_id"].map(labels.map(_LABELS))).join(facts, on="image_id")
    return rows.round(dict.fromkeys(["doubt", "probability", "score", *EDGES], 4))


def _cards(
    table: pd.DataFrame, used: Sequence[_Unseen], test_set: LabelledSplit
) -> Iterator[tuple[pd.DataFrame, DrawnCase]]:
    """Return the rows of the first images of the table, with truth and predictions to be drawn."""
    source = read_systems({}, test_set, [], policy="max_f1")
    most = _SHOWN if test_set.dataset.has_pixels else 0
    chosen: list[str] = table["image_id"].unique()[:most].tolist()
    drawn = list(source.systems)
    for each in used:
        if shown_ids := [image_id for image_id in chosen if image_id in each.output.image_ids]:
            systems = {each.predictions.name: each.predictions}
            drawn += read_systems(systems, each.test_set, shown_ids, policy="max_f1").systems
    for position, image_id in enumerate(chosen):
        try:
            pixels = test_set.dataset.read_original(image_id)
        except InputError:
            continue  # the image file is gone, which `cxr check` reports
        shown = replace(source, systems=tuple(s for s in drawn if image_id in s.decisions.index))
        case = DrawnCase.from_image(
            shown, image_id, pixels, anchor=str(position), most=_IMAGE_BYTES
        )
        yield table[table["image_id"] == image_id], case
