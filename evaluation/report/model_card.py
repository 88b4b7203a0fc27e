"""Model card of a system: what it is, what it learned from, its figures and where it fails.

The card is a Markdown file with the sections of Mitchell et al. 2019 (Model Cards for Model
Reporting) and the metadata block of the Hugging Face Hub. It has only what files record; what they
do not record is called unknown. A report holds a card of every system, imported ones included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.table import Table, markdown_rows, markdown_text
from cxr_compare.evaluation.report.weight_licence import Start, starting_weights

_HUB_METRICS = {"auroc": "roc_auc", "recall": "recall", "precision": "precision", "f1": "f1"}
"""Names of metrics on the Hugging Face Hub; other metrics keep their own names."""


_ETHICS = """\
- A missed finding delays care, and a false alarm causes further examinations; both shares are \
among the figures above where they are known.
- The labels are the opinion of those who annotated the images, and share their errors.
- This card names no patient."""
_NOT_INTENDED = """\
- **Not intended**: the diagnosis or care of any patient. This is not a medical device.
- **Out of scope**: other findings, other views and body parts, and patients or scanners unlike \
those of the data below."""
_GROUPS = (
    "● marks a group that is shown to differ from all other images after Holm's correction for all "
    "tests of groups."
)


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
        errors: Kinds of error with the number of each; None if unknown.
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
    figures: Sequence[Table] = ()
    groups: Sequence[Table] = ()
    errors: Table | None = None
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
        blocks = [
            "\n".join(["---", *self._metadata(), "---"]),
            f"# Model card: {markdown_text(self.name)}",
            "## Model details",
            "\n".join(self._details()),
            "## Intended use",
            f"- **Intended**: research on the detection of {markdown_text(self.finding)} in "
            f"frontal chest X-rays, and the comparison of systems.\n{_NOT_INTENDED}",
            "## Factors",
            self._factors(),
            "## Metrics",
            "\n".join(self._metrics()),
            "## Evaluation data",
            self._evaluation_data(),
            "## Training data",
            self._training_data_text(),
            "## Quantitative analyses",
            *self._analyses(),
            "## Ethical considerations",
            _ETHICS,
            "## Caveats and recommendations",
            "\n".join(self._caveats()),
            "The layout is that of Mitchell et al., Model Cards for Model Reporting, FAT* 2019, "
            "doi:10.1145/3287560.3287596.",
        ]
        return "\n\n".join(blocks) + "\n"

    def _details(self) -> list[str]:
        record = self.record
        kind = "an image classifier, which gives a score for the image"
        if self.kind == "boxes":
            kind = "a lesion detector, which gives boxes with scores"
        lines = [f"- **What it is**: {kind}, for {markdown_text(self.finding)} on chest X-rays."]
        lines += self._makers()
        seed = record.get("seed")
        if seed is not None:
            seeds = seed if isinstance(seed, list | tuple) else [seed]
            lines.append(f"- **Random seed**: {', '.join(map(str, seeds))}.")
        if record.get("created") and not self.imported:
            backend = f", run with {record['backend']}" if record.get("backend") else ""
            precision = f" in {record['precision']}" if record.get("precision") else ""
            lines.append(f"- **Recorded**: {record['created']}{backend}{precision}.")
        lines.append(
            f"- **Ids**: inference `{record.get('inference_id') or 'unknown'}`, training "
            f"`{record.get('training_id') or 'unknown'}`."
        )
        return [*lines, f"- **Licence of the weights**: {self._licence()}"]

    def _makers(self) -> list[str]:
        record = self.record
        if self.imported:
            return [
                "- **Made by**: another program. Its predictions were imported, so network, "
                "training and version are unknown here."
            ]
        if record.get("members"):
            names = [markdown_text(member["system"]) for member in record["members"]]
            return [f"- **Made by**: cxr-compare, as a combination of {listing(names)}."]
        if not record.get("recipe"):
            return [
                "- **Made by**: cxr-compare; its training files were not available, so network "
                "and training are unknown here."
            ]
        network = self.model.get("backbone") or record["recipe"].get("network") or "not recorded"
        architecture = self.model.get("architecture")
        title = f"{architecture} on {network}" if architecture else str(network)
        size = f", images of {self.image_size} × {self.image_size} px" if self.image_size else ""
        version = (record.get("versions") or {}).get("cxr-compare")
        maker = f"cxr-compare {version}" if version else "cxr-compare"
        revision = f", revision `{record['revision']}`" if record.get("revision") else ""
        return [
            f"- **Network**: {markdown_text(title)}{size}.",
            f"- **Made by**: {maker}{revision}.",
        ]

    def _licence(self) -> str:
        if self.imported:
            return "unknown; ask whoever made the system."
        own = self.model.get("weights")
        network = str(self.model.get("backbone")).replace("timm:", "")
        start = {
            "random": "The training started from random weights.",
            "torchvision": "The training started from ImageNet weights of torchvision, whose code "
            "is under BSD-3-Clause. torchvision says that its weights may have terms of their own, "
            "which follow from the data that they were trained on.",
            "efficientnet_lite": "The training started from ImageNet weights of EfficientNet-Lite, "
            "under Apache-2.0.",
            "imagenet": "The training started from ImageNet weights, whose licence depends on the "
            "network; the run names it.",
            "timm": f"The training started from weights of timm ({markdown_text(network)}), whose "
            "licence is on the page of that model.",
            "own": f"The training started from `{own}`, whose licence applies as well.",
            "unknown": "It is unknown which weights the training started from.",
        }[self.weights]
        return (
            "no licence of these weights is recorded; whoever publishes them must choose one. "
            f"{start}"
        )

    def _factors(self) -> str:
        if self.evaluation is not None and self.evaluation.groups:
            return (
                "Figures by group of images are below; the groups are those that the data set "
                "records."
            )
        return (
            "No groups of images (such as sex, age or view) were evaluated, so it is unknown where "
            "the system does worse."
        )

    def _metrics(self) -> list[str]:
        score = "between 0 and 1, not calibrated, so it is no probability."
        if self.calibrated:
            score = "calibrated to a probability on validation images."
        lines = [f"- **Score**: {score}"]
        if self.points:
            lines.append(
                "- **Operating points**: an image is called positive from these scores on."
            )
        else:
            lines.append(
                "- **Operating point**: none is known, because no threshold was chosen. AUROC and "
                "average precision need none."
            )
        for point in self.points:
            main = " (the figures below)" if point.is_main and len(self.points) > 1 else ""
            lines.append(f"  - {point.policy}: {point.threshold}{main}")
        if self.evaluation is not None and self.evaluation.bounded:
            by = ", by patient"
            if self.evaluation.counts.get("n_patients") is None:
                by = ", by image, because patients are unknown"
            lines.append(
                f"- **Intervals**: 95 %{by}. AUROC after Obuchowski (1997), figures at a "
                "threshold by closed formulas, other figures by a bootstrap of patients."
            )
        elif self.evaluation is not None:
            lines.append(
                "- **Intervals**: none, because only the figures are stored with the predictions."
            )
        return lines

    def _evaluation_data(self) -> str:
        evaluation = self.evaluation
        if evaluation is None:
            return (
                "The system was not evaluated here. `cxr compare` gives figures with intervals, "
                "and writes this card with them."
            )
        split = f", split `{evaluation.split}`" if evaluation.split else ""
        n_images = evaluation.counts.get("n_images")
        n_patients = evaluation.counts.get("n_patients")
        n_positive = evaluation.counts.get("n_positive")
        images = f"{n_images:,}" if n_images else "an unknown number of"
        patients = f" of {counted(n_patients, 'patient')}" if n_patients else ""
        positive = "" if n_positive is None else f", {n_positive:,} positive"
        lines = [
            f"- **Data set**: {markdown_text(evaluation.data_set)}{split}.",
            f"- **Images**: {images} {evaluation.images} images{patients}{positive}.",
        ]
        if evaluation.images == "validation":
            lines.append(
                "- **These images chose weights and thresholds**, so the figures flatter the "
                "system. Run `cxr compare` for figures on test images."
            )
        if evaluation.synthetic:
            lines.append(
                f"- **{evaluation.synthetic:,} of these images are synthetic**, drawn by a program "
                "and of no patient."
            )
        return "\n".join(lines)

    def _training_data_text(self) -> str:
        if not self.training_data:
            return (
                "Unknown. The files do not say what the system was trained on, so it cannot be "
                "ruled out that it has seen the images above."
            )
        lines = [
            f"- **{markdown_text(key)}**: {markdown_text(text)}."
            for key, text in self.training_data
        ]
        how = self.training
        if how.get("epochs"):
            text = f"{how['epochs']} epochs"
            if how.get("batch_size"):
                text += f", batches of {how['batch_size']}"
            if how.get("optimiser"):
                text += f", {how['optimiser']}"
            if how.get("learning_rate"):
                text += f", learning rate {how['learning_rate']}"
            lines.append(f"- **Training run**: {text}.")
        return "\n".join(lines)

    def _analyses(self) -> list[str]:
        """Return tables of figures, of errors and of groups."""
        evaluation = self.evaluation
        if evaluation is None:
            return ["None."]
        blocks = []
        for section in evaluation.figures:
            blocks += _table_blocks(section)
        reason = (
            "this system has no threshold. `cxr tune` chooses one from its predictions on "
            "validation images"
        )
        if self.points:
            reason = "none of them is defined for this system on these images"
        blocks += [
            f"**{markdown_text(heading)}**: no figures, because {reason}."
            for heading in evaluation.left_out
        ]
        if evaluation.errors is not None:
            blocks += [*_table_blocks(evaluation.errors), evaluation.errors.lead]
        if evaluation.groups:
            blocks += ["### By group of images", _GROUPS]
            for section in evaluation.groups:
                blocks += _table_blocks(section)
        return blocks

    def _caveats(self) -> list[str]:
        lines = [f"- {markdown_text(text)}" for text in self.cautions]
        lines.append(
            "- Figures on one data set say little about another hospital. Evaluate the system on "
            "your own images before you rely on it."
        )
        if not self.training_data:
            lines.append(
                "- Ask whoever made the system what it was trained on, and whether any of your "
                "patients were among them."
            )
        return lines

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


def _table_blocks(table: Table) -> list[str]:
    return [f"**{markdown_text(table.title)}**", markdown_rows(table.frame)]


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
