"""Model card of a system: what it is, what it learned from, its figures and where it fails.

The card is a Markdown file with the sections of Mitchell et al. 2019 (Model Cards for Model
Reporting), below a YAML head as the Hugging Face Hub reads it. Each sentence is a plain function of
what files record. A sentence without data is left out, and so is a section without sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml  # type: ignore[import-untyped]

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import metric_title
from cxr_compare.evaluation.report.table import Table, escaped, markdown_rows
from cxr_compare.evaluation.verdict.unequal_recipes import conditions_of

_HUB_METRICS = {"auroc": "roc_auc", "recall": "recall", "precision": "precision", "f1": "f1"}
"""Names of metrics on the Hugging Face Hub; other metrics keep their own names."""
_TASKS = {
    "boxes": "object-detection",
    "scores": "image-classification",
    "both": "object-detection",
}
_KINDS = {
    "boxes": "a lesion detector, which gives boxes with scores",
    "scores": "an image classifier, which gives a score for the image",
    "both": "a joint system, which gives a score for the image and boxes with scores",
}
_ETHICS = (
    "A missed finding delays care, and a false alarm causes further examinations.",
    "The labels are the opinion of those who annotated the images, and share their errors.",
)
_TRAINING_DATA = {"data set": "Data set", "train": "Training", "val": "Validation"}
_LAYOUT = (
    "The layout is that of Mitchell et al., Model Cards for Model Reporting, FAT* 2019, "
    "doi:10.1145/3287560.3287596."
)


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
        groups: Tables of metrics in groups of images, such as age groups.
        errors: Kinds of error with the number of each; None if unknown.
        hub: Values for the metadata block that the Hugging Face Hub reads; see `hub_figure`.
        synthetic: Number of synthetic images among the images.
        bounded: True if the metrics have intervals; False if only their values are stored.
    """

    images: Literal["test", "validation"]
    data_set: str
    split: str = ""
    counts: Mapping[str, int | None] = field(default_factory=dict)
    figures: Sequence[Table] = ()
    groups: Sequence[Table] = ()
    errors: Table | None = None
    hub: Sequence[Mapping[str, str | float]] = ()
    synthetic: int = 0
    bounded: bool = True


@dataclass(frozen=True)
class ModelCard:
    """Content of the model card (a page that describes one model) of a detector or classifier.

    Attributes:
        kind: ``boxes`` for a detector, ``scores`` for a classifier or a human reader, ``both`` for
            a joint system of both.
        finding: Name of the finding (disease sign) in the form for the middle of a sentence, such
            as ``lung opacity``.
        findings: Short names of the findings any of which makes an image positive.
        record: What the model's files record: configuration (``recipe``), command, versions, ids
            and training data (``trained_on``); keys may be missing.
        thresholds: The model's thresholds, by the rule that chose them, such as ``max_f1``.
        main_policy: Rule of the threshold for results that are shown at one threshold only.
        calibrated: True if the scores were calibrated on validation images.
        evaluation: Metrics of the model; None if it was not evaluated.
        cautions: Sentences on what may make the metrics wrong.
    """

    name: str
    kind: str
    finding: str
    findings: tuple[str, ...]
    record: Mapping[str, Any]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    main_policy: str = ""
    calibrated: bool = False
    evaluation: CardEvaluation | None = None
    cautions: Sequence[str] = ()

    def to_markdown(self) -> str:
        """Return the card as Markdown, below the metadata block of the Hugging Face Hub."""
        head = yaml.safe_dump(self.head(), sort_keys=False, allow_unicode=True)
        blocks = [f"---\n{head}---", f"# Model card: {_name(self.name)}"]
        blocks += _section("Model details", _details(self))
        blocks += _section("Intended use", _intended_use(self))
        blocks += _section("Factors", [_factors(self.evaluation)])
        blocks += _section("Metrics", _metrics(self))
        blocks += _section("Evaluation data", _evaluation_data(self.evaluation))
        blocks += _section("Training data", _training_data(self))
        if self.evaluation is not None:
            blocks += ["## Quantitative analyses", *_tables(self.evaluation)]
        blocks += _section("Ethical considerations", _ETHICS)
        blocks += _section("Caveats and recommendations", _caveats(self))
        return "\n\n".join([*blocks, _LAYOUT]) + "\n"

    def head(self) -> dict[str, Any]:
        """Return the metadata block that the Hugging Face Hub reads."""
        task = _TASKS[self.kind]
        tags = ["chest-x-ray", "radiology", "medical-imaging", *self.findings]
        head: dict[str, Any] = {
            "license": "other",
            "license_name": "not-stated",
            "library_name": "cxr-compare",
            "pipeline_tag": task,
            "tags": [tag.replace("_", "-") for tag in tags],
        }
        evaluation = self.evaluation
        if evaluation is not None and evaluation.hub:
            results = {
                "task": {"type": task},
                "dataset": {
                    "type": evaluation.data_set,
                    "name": evaluation.data_set,
                    "split": evaluation.images,
                },
                "metrics": list(map(dict, evaluation.hub)),
            }
            head["model-index"] = [{"name": self.name, "results": [results]}]
        return head


def _section(title: str, sentences: Sequence[str]) -> list[str]:
    """Return a heading and a list of the sentences that have data; nothing if none has."""
    known = [f"- {sentence}" for sentence in sentences if sentence]
    return [f"## {title}", "\n".join(known)] if known else []


def _name(text: str) -> str:
    return escaped(text, "markdown")


def _details(card: ModelCard) -> list[str]:
    record = card.record
    return [
        f"**What it is**: {_KINDS[card.kind]}, for {_name(card.finding)} on chest X-rays.",
        _members(record),
        _version(record),
        _labelled("Revision", record.get("revision")),
        _labelled("Random seed", record.get("seed")),
        _labelled("Recorded", record.get("created") if record.get("backend") else None),
        _labelled("Id of the predictions", _of_seeds(record, "inference_id")),
        _labelled("Id of the training", _of_seeds(record, "training_id")),
        _licence(card),
    ]


def _labelled(label: str, value: Any) -> str:
    """Return a fact with its label; empty if the fact is unknown."""
    if value in (None, "", []):
        return ""
    values = value if isinstance(value, list | tuple) else [value]
    return f"**{label}**: {_name(', '.join(map(str, values)))}."


def _of_seeds(record: Mapping[str, Any], key: str) -> list[Any]:
    """Return the known values of a fact for all training seeds."""
    values = [of_one.get(key) for of_one in record.get("models", [record])]
    return list(dict.fromkeys(value for value in values if value))


def _members(record: Mapping[str, Any]) -> str:
    names = [_name(member["system"]) for member in record.get("members") or ()]
    return f"**Combination** of the predictions of {listing(names)}." if names else ""


def _version(record: Mapping[str, Any]) -> str:
    version = (record.get("versions") or {}).get("cxr-compare")
    return f"**Made by**: cxr-compare {version}." if version and record.get("recipe") else ""


def _licence(card: ModelCard) -> str:
    start = starting_weights(card.record.get("recipe"))
    if not start:
        return ""
    return (
        "**Licence of the weights**: none is recorded; whoever publishes them must choose one. "
        f"{start}"
    )


def _intended_use(card: ModelCard) -> list[str]:
    return [
        f"**Intended**: research on the detection of {_name(card.finding)} in frontal chest "
        "X-rays, and the comparison of systems.",
        "**Not intended**: the diagnosis or care of any patient. This is not a medical device.",
        "**Out of scope**: other findings, other views and body parts, and patients or scanners "
        "unlike those of the data below.",
    ]


def _factors(evaluation: CardEvaluation | None) -> str:
    if evaluation is None or not evaluation.groups:
        return ""
    return "**Groups of images**: those that the data set records; their figures are below."


def _metrics(card: ModelCard) -> list[str]:
    points = [
        f"**Threshold for {_name(policy_text(policy))}**: positive from {threshold:.4g} on"
        f"{' (the figures below)' if policy == card.main_policy else ''}."
        for policy, threshold in card.thresholds.items()
    ]
    return [_seeds(card.record), _score(card), *points, _intervals(card)]


def _seeds(record: Mapping[str, Any]) -> str:
    """Say which facts are means over several training seeds, and which are of the first alone."""
    models = record.get("models")
    if not models:
        return ""
    seed = models[0].get("seed")
    first = "the first" if seed is None else f"seed {seed}, the first"
    return (
        f"**Training seeds**: figures are means over {len(models)} trainings, each at its own "
        f"threshold. Thresholds, and what stands below on the training, are those of {first}."
    )


def _score(card: ModelCard) -> str:
    if card.calibrated:
        return "**Score**: calibrated to a probability on validation images."
    return "**Score**: not calibrated, so it is no probability."


def _intervals(card: ModelCard) -> str:
    evaluation = card.evaluation
    if evaluation is None or not evaluation.bounded:
        return ""
    unit = "image" if evaluation.counts.get("n_patients") is None else "patient"
    if card.record.get("models"):
        return (
            f"**Intervals**: 95 %, by {unit} and training seed after Obuchowski and Rockette "
            "(1995), and exact for a share of 0 or 1."
        )
    return (
        f"**Intervals**: 95 %, by {unit}. AUROC after Obuchowski (1997), figures at a threshold by "
        "closed formulas, other figures by a bootstrap of patients."
    )


def _evaluation_data(evaluation: CardEvaluation | None) -> list[str]:
    if evaluation is None:
        return []
    return [
        _labelled("Data set", evaluation.data_set),
        _labelled("Split", evaluation.split),
        _counts(evaluation),
        _chose(evaluation),
        _synthetic(evaluation),
    ]


def _counts(evaluation: CardEvaluation) -> str:
    counts = evaluation.counts
    parts = []
    if counts.get("n_images") is not None:
        parts.append(f"{counts['n_images']:,} {evaluation.images} images")
    if counts.get("n_patients") is not None:
        parts.append(counted(int(counts["n_patients"] or 0), "patient"))
    if counts.get("n_positive") is not None:
        parts.append(f"{counts['n_positive']:,} positive images")
    return f"**Images**: {listing(parts)}." if parts else ""


def _chose(evaluation: CardEvaluation) -> str:
    if evaluation.images == "test":
        return ""
    return (
        "**These images chose the thresholds**, and perhaps the weights, so the figures flatter "
        "the system. Run `cxr compare` for figures on test images."
    )


def _synthetic(evaluation: CardEvaluation) -> str:
    if not evaluation.synthetic:
        return ""
    return (
        f"**{evaluation.synthetic:,} of these images are synthetic**, drawn by a program and of no "
        "patient."
    )


def _training_data(card: ModelCard) -> list[str]:
    known = card.record.get("trained_on")
    facts = known if isinstance(known, Mapping) else {}
    conditions = conditions_of(card.record)
    return [
        *(_labelled(_TRAINING_DATA.get(key, str(key)), text) for key, text in facts.items()),
        *(_labelled(f"{name[:1].upper()}{name[1:]}", text) for name, text in conditions.items()),
    ]


def _tables(evaluation: CardEvaluation) -> list[str]:
    """Return tables of figures, of errors and of groups."""
    blocks = []
    for table in evaluation.figures:
        blocks += _table(table)
    if evaluation.errors is not None:
        blocks += [*_table(evaluation.errors), evaluation.errors.lead]
    if evaluation.groups:
        blocks += [
            "### By group of images",
            "● marks a group that is shown to differ from all other images after Holm's correction "
            "for all tests of groups.",
        ]
    for table in evaluation.groups:
        blocks += _table(table)
    return blocks


def _table(table: Table) -> list[str]:
    return [f"**{_name(table.title)}**", markdown_rows(table.frame)]


def _caveats(card: ModelCard) -> list[str]:
    return [
        *map(_name, card.cautions),
        *_unknown_training(card),
        "Figures on one data set say little about another hospital. Evaluate the system on your "
        "own images before you rely on it.",
    ]


def _unknown_training(card: ModelCard) -> list[str]:
    if isinstance(card.record.get("trained_on"), Mapping):
        return []
    return [
        "No file records what the system learned from: it may have seen images of any data set."
    ]


def hub_figure(metric: str, value: float, policy: str = "") -> dict[str, str | float]:
    """Return the value of a metric under the name that the Hugging Face Hub has for the metric.

    ``name`` is a title for readers. `policy` is empty for a metric without a threshold.

    Example:
        >>> hub_figure("auroc", 0.9)
        {'type': 'roc_auc', 'value': 0.9, 'name': 'AUROC'}
    """
    title = metric_title(metric)
    if policy:
        title += f" at {policy_text(policy)}"
    return {
        "type": _HUB_METRICS.get(metric, metric),
        "value": float(f"{value:.4g}"),
        "name": title,
    }


def starting_weights(recipe: Mapping[str, Any] | None) -> str:
    """Return a sentence on the weights from which the training of a network started.

    It also says under which terms they are. The network's settings (``weights`` and ``backbone``)
    are under ``["config"]["model"]`` of the recipe. The sentence is empty if nothing is recorded,
    as for predictions of another program.

    Example:
        >>> starting_weights({"config": {"model": {"backbone": "resnet50", "weights": "none"}}})
        'The training started from random weights.'
        >>> starting_weights(None)
        ''
    """
    model = ((recipe or {}).get("config") or {}).get("model") or {}
    weights, backbone = str(model.get("weights", "")), str(model.get("backbone", ""))
    if not weights:
        return ""
    if weights == "none":
        return "The training started from random weights."
    if weights != "imagenet":
        return "The training started from other weights of the user, whose licence applies as well."
    if not backbone:
        return "The training started from ImageNet weights, whose licence depends on the network."
    if backbone.startswith("efficientnet_lite"):
        return "The training started from ImageNet weights of EfficientNet-Lite, under Apache-2.0."
    if backbone.startswith("timm:"):
        return (
            "The training started from weights of timm, whose licence is on the page of that model."
        )
    return (
        "The training started from ImageNet weights of torchvision, whose code is under "
        "BSD-3-Clause. torchvision says that its weights may have terms of their own, which follow "
        "from the data that they were trained on."
    )
