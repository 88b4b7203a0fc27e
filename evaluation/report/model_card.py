"""Model card of a system: what it is, what it learned from, its figures and where it fails.

The card is a Markdown file with the sections of Mitchell et al. 2019 (Model Cards for Model
Reporting) and the metadata block of the Hugging Face Hub. It has only what files record; what they
do not record is called unknown. A report holds a card of every system, imported ones included.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cxr_compare.data_prep.contracts.atomic_files import write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import inside_sentence
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.error_types import error_table
from cxr_compare.evaluation.report.group_tables import group_tables
from cxr_compare.evaluation.report.interval_facts import is_calibrated
from cxr_compare.evaluation.report.summary_table import summary_table
from cxr_compare.evaluation.report.table import Cell
from cxr_compare.evaluation.report.templates import render
from cxr_compare.evaluation.report.unknown_patients import image_wording
from cxr_compare.evaluation.report.weight_licence import Start, starting_weights
from cxr_compare.evaluation.statistics.figure_text import DASH

_HUB_METRICS = {"auroc": "roc_auc", "recall": "recall", "precision": "precision", "f1": "f1"}
"""Names of metrics on the Hugging Face Hub; other metrics keep their own names."""
_HUB_FIGURES = ("auroc", "average_precision", "recall", "specificity", "precision", "f1", "ap50")


@dataclass(frozen=True)
class CardTable:
    """Table of a model card (a page that describes one model), as texts.

    Attributes:
        title: Heading above the table.
        heads: Headings of the columns.
        rows: Text of each cell, row by row.
    """

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class OperatingPoint:
    """One threshold of a model, as the model card (a page that describes the model) lists it.

    Attributes:
        policy: Rule by which the threshold was chosen, in words, such as ``best F1``.
        threshold: The threshold as text, such as ``0.42``.
        is_main: True for the threshold that the report uses where it shows results at one threshold
            only.
    """

    policy: str
    threshold: str
    is_main: bool = False


@dataclass(frozen=True)
class HubFigure:
    """One value of a metric in the form in which the Hugging Face Hub reads it.

    Attributes:
        kind: Name of the metric on the Hub, such as ``roc_auc``.
        name: Name of the metric for readers, such as ``AUROC``.
        value: Value of the metric.
    """

    kind: str
    name: str
    value: float


@dataclass(frozen=True)
class CardEvaluation:
    """Metrics of one model on one set of images, for its model card.

    Attributes:
        images: ``test`` for test images, or ``validation`` for images that chose weights and
            thresholds.
        data_set: Name of the data set, such as ``rsna``.
        split: Name of the division of the data set into training, validation and test images; empty
            if unknown.
        counts: Numbers of images, patients and positive images by ``n_images``, ``n_patients`` and
            ``n_positive``; a value is None, or its key missing, if unknown.
        figures: Tables of metrics with their 95 % intervals.
        groups: Tables of metrics in groups of images, such as age groups.
        errors: Kinds of error of the predicted boxes with the number of each, as texts.
        hub: Values for the metadata block that the Hugging Face Hub reads.
        synthetic: Number of synthetic images among the images.
        bounded: True if the metrics have intervals; False if only their values are stored.
        left_out: Headings of tables that are left out because the model has no threshold, such as
            ``At the threshold for best F1``.
    """

    images: Literal["test", "validation"]
    data_set: str
    split: str = ""
    counts: Mapping[str, int | None] = field(default_factory=dict)
    figures: Sequence[CardTable] = ()
    groups: Sequence[CardTable] = ()
    errors: Sequence[tuple[str, str]] = ()
    hub: Sequence[HubFigure] = ()
    synthetic: int = 0
    bounded: bool = True
    left_out: Sequence[str] = ()


@dataclass(frozen=True)
class ModelCard:
    """Content of the model card (a page that describes one model) of a detector or classifier.

    Attributes:
        name: Name of the model as shown to readers.
        kind: ``boxes`` for a detector, ``scores`` for a classifier or a human reader.
        finding: Name of the finding (disease sign) in the form for the middle of a sentence, such
            as ``lung opacity``.
        findings: Short names of the findings any of which makes an image positive.
        record: What the model's files record: configuration (``recipe``), command, versions, ids
            and training data (``trained_on``); keys may be missing.
        points: The model's thresholds.
        calibrated: True if the scores were calibrated on validation images.
        evaluation: Metrics of the model; None if it was not evaluated.
        cautions: Sentences on what may make the metrics wrong.

    Example:
        >>> card = ModelCard("A", "scores", "mass", ("mass",), {"trained_on": "unknown"})
        >>> card.imported, card.weights
        (True, 'unknown')
    """

    name: str
    kind: str
    finding: str
    findings: tuple[str, ...]
    record: Mapping[str, Any]
    points: Sequence[OperatingPoint] = ()
    calibrated: bool = False
    evaluation: CardEvaluation | None = None
    cautions: Sequence[str] = ()

    @property
    def imported(self) -> bool:
        """True if only predictions that another program made are known, not the model."""
        return not (
            self.record.get("recipe") or self.record.get("backend") or self.record.get("members")
        )

    @property
    def weights(self) -> Start:
        """Source of the weights from which training started, such as ``torchvision``.

        It is ``random`` without pretrained weights, ``own`` for the user's own weights, and
        ``unknown`` if nothing is recorded; otherwise it names the publisher of ImageNet weights.
        """
        return starting_weights(self.record.get("recipe"))

    @property
    def model(self) -> Mapping[str, Any]:
        """Settings of the network from the model's configuration; empty if unknown."""
        return self._config.get("model") or {}

    @property
    def training(self) -> Mapping[str, Any]:
        """Settings of the training from the model's configuration; empty if unknown."""
        return self._config.get("training") or {}

    @property
    def image_size(self) -> int | None:
        """Side of the square image that the network takes in px; None if unknown."""
        return (self._config.get("data") or {}).get("image_size")

    @property
    def training_data(self) -> list[tuple[str, str]]:
        """Known facts about the training data, as pairs of title and text; may be empty.

        An example of a pair is ``("Data set", "rsna")``.
        """
        known = self.record.get("trained_on")
        if not isinstance(known, Mapping):
            return []
        names = {"data set": "Data set", "train": "Training", "val": "Validation"}
        return [(names.get(key, str(key)), str(value)) for key, value in known.items()]

    @property
    def _config(self) -> Mapping[str, Any]:
        return (self.record.get("recipe") or {}).get("config") or {}

    def to_markdown(self) -> str:
        """Return the card as Markdown with the metadata block of the Hugging Face Hub.

        Returns:
            The text of a ``README.md`` for the Hub: metadata between ``---`` lines, then the card.
        """
        text = render("model_card.md.jinja", card=self, metadata=self._metadata())
        return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"

    def _metadata(self) -> list[str]:
        """Return the lines of the metadata block. JSON texts are YAML, too."""
        task = "object-detection" if self.kind == "boxes" else "image-classification"
        tags = ["chest-x-ray", "radiology", "medical-imaging", *self.findings]
        lines = [
            "license: other",
            "license_name: not-stated",
            "library_name: cxr-compare",
            f"pipeline_tag: {task}",
            f"tags: {json.dumps([tag.replace('_', '-') for tag in tags])}",
        ]
        if self.evaluation is None or not self.evaluation.hub:
            return lines
        data_set = json.dumps(self.evaluation.data_set)
        lines += [
            "model-index:",
            f"- name: {json.dumps(self.name)}",
            "  results:",
            "  - task:",
            f"      type: {task}",
            "    dataset:",
            f"      type: {data_set}",
            f"      name: {data_set}",
            f"      split: {self.evaluation.images}",
            "    metrics:",
        ]
        for figure in self.evaluation.hub:
            lines += [
                f"    - type: {figure.kind}",
                f"      value: {figure.value:.4g}",
                f"      name: {json.dumps(figure.name)}",
            ]
        return lines


def hub_figure(metric: str, value: float, policy: str = "") -> HubFigure:
    """Return the value of a metric under the name that the Hugging Face Hub has for the metric.

    Args:
        metric: Short name of the metric, such as ``auroc``.
        value: Value of the metric.
        policy: Rule by which its threshold was chosen, such as ``max_f1``; empty for a metric
            without a threshold.

    Returns:
        The value with the Hub's name of the metric and a title for readers.

    Example:
        >>> hub_figure("auroc", 0.9)
        HubFigure(kind='roc_auc', name='AUROC', value=0.9)
    """
    title = metric_title(metric)
    if policy:
        title += f" at {policy_text(policy)}"
    return HubFigure(_HUB_METRICS.get(metric, metric), title, value)


def card_of_comparison(comparison: Comparison, name: str) -> ModelCard:
    """Return the model card of one of the compared systems, with its metrics on the test images.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        name: Name of the system (detector or classifier) in the comparison.

    Returns:
        The content of the model card.
    """
    result = comparison.systems[name]
    record = comparison.records.get(name) or {}
    main = comparison.main_policy
    points = [
        OperatingPoint(policy_text(policy), _threshold(value), policy == main)
        for policy, value in result.thresholds.items()
        if value is not None
    ]
    return ModelCard(
        name=name,
        kind=str(record.get("kind") or ("boxes" if result.boxes is not None else "scores")),
        finding=inside_sentence(comparison.display_name),
        findings=tuple(comparison.findings),
        record=record,
        points=points,
        calibrated=is_calibrated(record),
        evaluation=_evaluation(comparison, name),
        cautions=[caution.text for caution in comparison.answer.cautions],
    )


def _threshold(value: float) -> str:
    return f"{value:.4g}"


def _evaluation(comparison: Comparison, name: str) -> CardEvaluation:
    figures = comparison.figures
    position = comparison.names.index(name)
    table = summary_table(comparison)
    sections = []
    left_out = []
    for group in table.groups:
        known = [row for row in group.rows if _is_known(row[1 + position])]
        if not known:
            left_out.append(group.title)
            continue
        rows = tuple((str(row[0]), str(row[1 + position])) for row in known)
        sections.append(CardTable(group.heading, ("Figure", "Value (95 % interval)"), rows))
    groups = []
    for of_metric in group_tables(comparison):
        # The columns are the group, its images, each system, and each difference from the rest.
        column = 2 + position
        if all(row[column] == DASH for row in of_metric.rows):
            continue
        difference = column + len(comparison.names)
        groups.append(
            CardTable(
                of_metric.title,
                (of_metric.columns[0], of_metric.columns[1], name, "Minus all other images"),
                tuple(
                    (str(row[0]), str(row[1]), str(row[column]), str(row[difference]))
                    for row in of_metric.rows
                ),
            )
        )
    errors = error_table(comparison)
    counts = figures.get(name, comparison.protocol.metric, comparison.protocol.policy).counts
    main = comparison.main_policy
    hub = []
    for metric in _HUB_FIGURES:
        for policy in dict.fromkeys(("", main)):
            figure = figures.get(name, metric, policy, subgroup=ALL)
            if figure.known:
                hub.append(hub_figure(metric, float(figure.estimate), policy))
    return CardEvaluation(
        images="test",
        data_set=str((comparison.provenance.get("data_set") or {}).get("name") or "not named"),
        split=comparison.split,
        counts={
            "n_images": counts.n_images,
            "n_patients": counts.n_patients if comparison.patients_known else None,
            "n_positive": counts.n_positive,
        },
        figures=sections,
        groups=groups,
        errors=[(str(row[0]), str(row[1 + position])) for row in (errors.rows if errors else ())],
        hub=hub,
        synthetic=comparison.background.synthetic,
        left_out=left_out,
    )


def _is_known(cell: str | Cell) -> bool:
    return not isinstance(cell, Cell) or cell.known


def card_files(names: Iterable[str]) -> dict[str, str]:
    """Return a file name for the model card of each system, relative to the report folder.

    Args:
        names: Names of the systems (detectors and classifiers).

    Returns:
        File name such as ``cards/CheXNet.md`` by system; no two are equal, even if case is ignored.

    Example:
        >>> card_files(["A b", "a/b"])
        {'A b': 'cards/A-b.md', 'a/b': 'cards/a-b-2.md'}
    """
    taken: set[str] = set()
    chosen = {}
    for number, name in enumerate(names, start=1):
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or f"system-{number}"
        if stem.lower() in taken:
            stem = f"{stem}-{number}"
        taken.add(stem.lower())
        chosen[name] = f"{files.CARDS}/{stem}.md"
    return chosen


def write_cards(comparison: Comparison, out: Path) -> None:
    """Write the model card of every compared system as Markdown into the folder ``cards``.

    Model cards of an earlier report in this folder are removed.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.
        out: Folder of the report, in which ``cards`` is made.
    """
    make_folder(out / files.CARDS)
    for stale in (out / files.CARDS).glob("*.md"):
        stale.unlink()
    for name, file in card_files(comparison.names).items():
        text = card_of_comparison(comparison, name).to_markdown()
        write_text(out / file, text if comparison.patients_known else image_wording(text))
