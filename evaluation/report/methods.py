"""Methods section of a report: paragraphs of a paper, and references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.boxes.map_boxes import cell_size_text
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.policy_text import policy_text
from cxr_compare.evaluation.metrics.prose import inside_sentence, listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.report.citations import Citations
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.report.interval_texts import (
    hits_text,
    uncertainty_text,
)
from cxr_compare.evaluation.report.trained_systems import (
    imported_text,
    prediction_text,
    system_text,
)
from cxr_compare.evaluation.statistics.calibration import (
    Calibration,
    IsotonicScaling,
    PlattScaling,
    RawScores,
)
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.thresholds import Policy

_ROLES = {"train": "training", "val": "validation", "test": "test"}
_REDUCTIONS = {
    "max": "most confident box",
    "noisy_or": "noisy-or of the boxes",
    "top_k": "mean of the three most confident boxes",
}
_MAPS = {
    "cam": ("class activation maps", "cam2016"),
    "gradcam": ("Grad-CAM", "gradcam2017"),
    "layercam": ("LayerCAM", "layercam2021"),
    "token_gradcam": ("Grad-CAM over the tokens of its last block", "gradcam2017"),
}
"""Names of the methods of maps, and the key of their reference."""
_SOFTWARE = {
    "python": "Python",
    "torch": "PyTorch",
    "numpy": "NumPy",
    "scipy": "SciPy",
    "pandas": "pandas",
}


class Methods(NamedTuple):
    """Methods section of a paper, as paragraphs and numbered references."""

    paragraphs: list[str]
    references: list[str]


def methods(comparison: Comparison, labelled: LabelledImages) -> Methods:
    """Return the methods section of the report."""
    citations = Citations()
    made = IntervalFacts.from_comparison(comparison)
    paragraphs = [
        _data_paragraph(comparison, labelled, citations),
        _systems_paragraph(comparison, citations),
        _decisions_paragraph(comparison, made, citations),
        _statistics_paragraph(comparison, made, citations),
    ]
    return Methods(paragraphs, citations.texts)


def policy_meaning(policy: Policy) -> str:
    """Say how a rule chooses a threshold, and what that means for test images."""
    highest = "if several do equally well, the highest of them"
    match policy.kind:
        case "threshold":
            return "Declared by the user and used as it is. No image was used to choose it."
        case "declared":
            return "Declared for each system by name and source, and used as it is."
        case "max_f1":
            return f"The threshold with the highest F1 on the validation images; {highest}."
        case "youden":
            return (
                "The threshold with the highest Youden's J = sensitivity + specificity − 1 on the "
                f"validation images; {highest}."
            )
        case "cost":
            prevalence = "the prevalence of validation"
            if policy.prevalence is not None:
                prevalence = f"a prevalence of {policy.prevalence:g}"
            return (
                "The threshold with the least expected cost on the validation images: a missed "
                f"positive costs {policy.value:g} times as much as a false alarm, at {prevalence}; "
                f"{highest}. There is none where calling all images alike costs less."
            )
        case "sensitivity":
            return (
                f"The highest threshold that reaches a sensitivity of {policy.value:g} on the "
                "validation images. On test images the sensitivity may be lower."
            )
    return (
        f"The lowest threshold that reaches a specificity of {policy.value:g} on the validation "
        "images, so that systems are compared at about the same rate of false alarms. On test "
        "images the specificity may differ."
    )


def map_cells(comparison: Comparison) -> dict[str, str]:
    """Return the size of the cells of each system's maps in words, by its name."""
    return {
        name: cell_size_text(system.maps)
        for name, system in comparison.systems.items()
        if system.map_scale is not None and system.maps is not None and len(system.maps)
    }


def _data_paragraph(comparison: Comparison, labelled: LabelledImages, citations: Citations) -> str:
    finding = inside_sentence(labelled.shown_name)
    data_name = (comparison.provenance.get("data_set") or {}).get("name") or labelled.title
    sources = labelled.images.get("source", pd.Series(dtype=object)).value_counts()
    evaluated = _chosen(labelled.images, comparison.decisions["image_id"])
    texts = [f"This is an evaluation of {listing(comparison.names)} on {finding}."]
    cited = citations.cite_for("sources", *sources.index)
    if data_name:
        texts.append(f"The data set is “{data_name}”{cited}.")
    elif cited:
        texts.append(f"The source of the images is published{cited}.")
    if comparison.synthetic:
        is_all = comparison.synthetic == len(evaluated)
        which = "All" if is_all else f"{comparison.synthetic:,} of the"
        texts.append(
            f"{which} evaluated test images are synthetic, made by this program, not of patients."
        )
    texts += [
        _label_rule(comparison, finding),
        _roles(comparison, labelled),
        f"Evaluated test images: {_people(evaluated)}.",
        *(
            note.text
            for note in comparison.notes
            if note.kind in ("left_out", "no_boxes", "assumption") and not note.names_images
        ),
    ]
    return " ".join(text for text in texts if text)


def _label_rule(comparison: Comparison, finding: str) -> str:
    """Say which images are positive, and which negative."""
    if len(comparison.findings) == 1:
        return (
            f"An image was positive where the reference labels state that {finding} is present, "
            "and negative where they state that it is absent."
        )
    findings = " or ".join(name.replace("_", " ") for name in comparison.findings)
    return (
        f"An image was positive where the reference labels state that {findings} is present, and "
        "negative where they state that all are absent."
    )


def _roles(comparison: Comparison, labelled: LabelledImages) -> str:
    """Describe the roles of a split, among images with a known label; empty for a single role."""
    texts = []
    for role, title in _ROLES.items():
        labels = labelled.labels_of(role).dropna()
        if len(labels):
            n_images = _count(_chosen(labelled.images, labels.index))
            texts.append(f"{title} {n_images}, {int((labels == 1).sum()):,} positive")
    if len(texts) < 2:
        return ""
    rule = labelled.split_rule
    how = [] if rule is None else [rule.method]
    if rule is not None and rule.balanced:
        how.append(f"balanced by {listing(rule.balanced)}")
    if comparison.audit is not None and not comparison.audit:
        how.append("each patient in one role")
    assigned = f" ({', '.join(how)})" if how else ""
    return f"Each image had one role{assigned}: {'; '.join(texts)}."


def _chosen(images: pd.DataFrame, image_ids: Any) -> pd.DataFrame:
    return images[images["image_id"].isin(image_ids)]


def _count(images: pd.DataFrame) -> str:
    """Count images and, where they are known, their patients."""
    count = counted(len(images), "image")
    if "patient_id" not in images:
        return count
    return f"{count} of {counted(int(images['patient_id'].nunique()), 'patient')}"


def _people(images: pd.DataFrame) -> str:
    """Describe number, sex, age and view of images, as far as they are known."""
    facts = (_count(images), _shares(images, "sex"), _ages(images), _shares(images, "view"))
    return "; ".join(fact for fact in facts if fact)


def _ages(images: pd.DataFrame) -> str:
    """Return median and quartiles of the ages of images; empty if they are unknown."""
    ages = images["age_years"].dropna() if "age_years" in images else pd.Series(dtype=float)
    if not len(ages):
        return ""
    low, middle, high = ages.quantile([0.25, 0.5, 0.75])
    return f"age median {middle:.0f} (quartiles {low:.0f} to {high:.0f})"


def _shares(images: pd.DataFrame, column: str) -> str:
    """Return the numbers of images with each value of a column; empty if they are unknown."""
    values = images[column].dropna() if column in images else pd.Series(dtype=object)
    if not len(values):
        return ""
    counts = values.value_counts().sort_index()
    shares = [f"{value} {count:,}" for value, count in counts.items()]
    if len(values) < len(images):
        shares.append(f"unknown {len(images) - len(values):,}")
    return f"{column} {', '.join(shares)}"


def _systems_paragraph(comparison: Comparison, citations: Citations) -> str:
    texts = []
    imported = []
    for name in comparison.systems:
        facts = comparison.records.get(name) or {}
        original = comparison.same_training.get(name)
        if original is not None:
            same = f"{name} is the same trained network as {original}."
            texts.append(f"{same} {prediction_text(facts)}".rstrip())
        elif any(facts.get(key) for key in ("recipe", "members", "description", "backend")):
            texts.append(system_text(name, facts, citations, described=comparison.names))
        else:
            imported.append(name)
    return " ".join([*texts, imported_text(imported)] if imported else texts)


def _decisions_paragraph(comparison: Comparison, made: IntervalFacts, citations: Citations) -> str:
    texts = ["No system had a threshold, so no image was called positive or negative."]
    if made.has_thresholds:
        texts = ["An image was called positive where its score was at or above the threshold."]
        if any(system.threshold_ranges for system in comparison.systems.values()):
            texts.append(
                "Brackets behind a threshold: its range in 95 % of resamples of the validation "
                "patients."
            )
    for name, system in comparison.systems.items():
        decision = _recorded_choices(comparison, name)
        validated = decision is not None and decision.chosen_on.get("n_images")
        if made.has_thresholds or (decision is not None and decision.reduction) or validated:
            chosen = [] if decision is None else _choices(decision, citations)
            parts = [*chosen, _thresholds(system)]
            texts.append(f"{name}: {_chosen_on(decision)}: {'; '.join(parts)}.")
    cells = map_cells(comparison)
    for name in comparison.systems:
        facts = comparison.records.get(name) or {}
        if facts.get("maps"):
            method = facts["maps"]["method"]
            title, key = _MAPS.get(method, (method, ""))
            cited = citations.cite(key) if key else ""
            of_cells = f" of {cells[name]}" if name in cells else ""
            texts.append(
                f"Locations and boxes of {name} are read from its {title}{cited}{of_cells}."
            )
    texts.append(hits_text(made))
    texts += [note.text for note in comparison.notes if note.kind in ("seeds", "image_blind")]
    return " ".join(text for text in texts if text)


def _recorded_choices(comparison: Comparison, name: str) -> Choices | None:
    """Return what validation chose for the first seed of a system, if the comparison records it."""
    decisions = comparison.systems[name].decisions
    is_recorded = "decision" in (comparison.records.get(name) or {})
    return decisions[0] if decisions and is_recorded else None


def _chosen_on(decision: Choices | None) -> str:
    """Name the validation images of a decision, and how many settings were tried on them."""
    facts = {} if decision is None else decision.chosen_on
    if decision is None or not facts.get("n_images"):
        return "without validation images"
    text = (
        f"chosen on {facts['n_images']:,} validation images of {facts['n_patients']:,} patients, "
        f"{facts['n_positive']:,} positive"
    )
    n_tried = len(decision.tried)
    if not n_tried:
        return text
    tried = counted(n_tried, "setting")
    if decision.reduction:
        tried = f"{counted(n_tried, 'rule')} from boxes to an image score"
    return f"{text} ({tried} tried)"


def _choices(decision: Choices, citations: Citations) -> list[str]:
    """Return what validation chose for a system apart from its thresholds."""
    texts = []
    reduction = decision.reduction
    if reduction:
        rule = _REDUCTIONS.get(reduction.rule, reduction.rule)
        if reduction.min_score:
            rule += f" with scores of at least {reduction.min_score:g}"
        texts.append(f"image score: {rule}")
    if decision.calibration:
        is_platt = decision.calibration.method == "platt"
        cited = citations.cite("platt2000") if is_platt else ""
        texts.append(f"probability: {_probability(decision.calibration, decision.losses)}{cited}")
    if decision.box_rule_text:
        texts.append(f"boxes {_box_rule(decision)}")
    if decision.box_cut is not None:
        texts.append(f"boxes count in the RSNA score from a score of {decision.box_cut:g}")
    if decision.map_scale:
        low, high = decision.map_scale
        texts.append(f"full scale of its maps {number(low, 2)} to {number(high, 2)}")
    return texts


def _probability(calibration: Calibration, losses: Mapping[str, float]) -> str:
    """Name a calibration and the losses of those that were compared."""
    if isinstance(calibration, RawScores):
        text = "the score as it is"
    elif isinstance(calibration, IsotonicScaling):
        levels = len(set(calibration.probabilities))
        text = (
            f"isotonic regression with {levels} levels and straight lines between them; the order "
            "of scores is kept, and scores on one level are tied"
        )
    elif calibration.method == "temperature":
        text = f"temperature {number(1 / calibration.slope, 2)}"
    else:
        text = (
            f"Platt scaling with slope {number(calibration.slope, 2)} and intercept "
            f"{number(calibration.intercept, 2)}"
        )
    if isinstance(calibration, PlattScaling) and calibration.no_box is not None:
        text += f"; a score of 0 (no box) becomes {number(calibration.no_box)}"
    if losses:
        shown = [f"{name.replace('_', ' ')} {number(loss)}" for name, loss in losses.items()]
        text += f"; held-out log loss: {', '.join(shown)}"
    return text


def _box_rule(decision: Choices) -> str:
    """Name the rule for boxes of a decision."""
    rule = decision.box_rule_text
    text = f"cut from its maps {rule}" if decision.map_boxes else str(rule)
    n_tried = len(decision.boxes_tried)
    if n_tried > 1:
        metric = decision.options.boxes_by
        text += f" (the best of {n_tried} rules by {METRICS[metric].title_in_sentence})"
    return text


def _thresholds(system: SystemResult) -> str:
    """Name the thresholds of a system, and where those of other validation patients would lie."""
    known = []
    for policy, value in system.thresholds.items():
        if value is None:
            continue
        if policy.startswith("threshold="):
            known.append(f"declared threshold {number(value)}")
            continue
        text = f"threshold for {policy_text(policy)} {number(value)}"
        ends = system.threshold_ranges.get(policy)
        if ends:
            text += f" ({number(ends[0])} to {number(ends[1])})"
        known.append(text)
    return ", ".join(known) or "no threshold"


def _statistics_paragraph(comparison: Comparison, made: IntervalFacts, citations: Citations) -> str:
    texts = [
        *_question(comparison),
        uncertainty_text(made, citations.cite),
        _software(comparison, citations),
    ]
    return " ".join(texts)


def _question(comparison: Comparison) -> list[str]:
    """Say what the comparison asks, and if a protocol fixed it."""
    protocol = comparison.protocol
    if protocol.declared:
        texts = [f"A protocol was given: {protocol.title}."]
    else:
        texts = ["No protocol was given, so the analysis is exploratory."]
        if len(comparison.names) > 1:
            texts.append(f"Systems were compared by {protocol.title}.")
    if protocol.margin is not None and len(comparison.names) > 1:
        texts.append(
            f"The margin is {protocol.margin:g}, against the reference {comparison.names[0]}: a "
            "system is non-inferior if the interval of its difference from the reference lies "
            "above minus the margin, and equivalent if it lies within the margin on both sides."
        )
    if protocol.subgroups:
        texts.append(f"The protocol names the subgroups {listing(protocol.subgroups)}.")
    return texts


def _software(comparison: Comparison, citations: Citations) -> str:
    """Name the versions of the program and its libraries; PyTorch only if a system was trained."""
    versions = comparison.provenance.get("versions") or {}
    own = f"cxr-compare {versions.get('cxr-compare', '')}".rstrip()
    texts = [f"Software: {own}{citations.cite('cxrcompare')}"]
    records = [comparison.records.get(name) or {} for name in comparison.systems]
    is_trained_here = any("recipe" in facts for facts in records)
    for name, title in _SOFTWARE.items():
        if name in versions and (name != "torch" or is_trained_here):
            cited = citations.cite("pytorch2019") if name == "torch" else ""
            texts.append(f"{title} {versions[name]}{cited}")
    return f"{', '.join(texts)}."
