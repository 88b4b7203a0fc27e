"""Content of ``answer.json``: the answer of a comparison in sentences, and the facts behind it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import Field

from cxr_compare.data_prep.contracts.provenance import MadeRecord
from cxr_compare.data_prep.contracts.records import Digests, Items, NumbersByName, Record, Whole
from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.report.curves import chart_facts
from cxr_compare.evaluation.report.given_thresholds import given_threshold_lines
from cxr_compare.evaluation.report.unknown_patients import image_worded_record
from cxr_compare.evaluation.verdict.verdict_parts import JointSystem


class EvaluatedOn(Record):
    """The data set on which a comparison report was made.

    `name` is that of the data set, or of the file with the truth. `content_id` (digest of the table
    of images) and `labels_id` (digest of the labels and boxes) are None for a truth that is no data
    set. `split_ids` has the digest of each split by its name.
    """

    name: str
    content_id: str | None = None
    labels_id: str | None = None
    split: str | None = None
    split_ids: dict[str, str] = Field(default_factory=dict)


class ReportOrigin(MadeRecord):
    """Data set and systems (models or human readers) from which a comparison report was made.

    Attributes:
        bootstrap: Number of resamples, their seed and the kind of interval.
        seeds: Training seeds of each system.
        systems: For each system by its name, facts such as its kind and the data on which it was
            trained.
        names_hidden: True if the ids of images and patients are numbers.
    """

    data_set: EvaluatedOn | None = None
    bootstrap: dict[str, Any] = Field(default_factory=dict)
    seeds: dict[str, Any] = Field(default_factory=dict)
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    names_hidden: bool = False


class JointMembers(Record):
    """Names of the joint system of a comparison and of its members."""

    name: str
    members: Items[str]


class AnswerTable(Record):
    """The main table of a report as texts, with the texts of each column in `data`, row by row.

    Each entry of `index` is the heading of the section and the name of a row.
    """

    index: list[list[str]]
    columns: list[str]
    data: list[list[str]]


class AnswerInfo(Record, kind="answer"):
    """Content of ``answer.json``: the answer of a comparison, which marks its report as complete.

    Attributes:
        headline: The answer in one sentence.
        ranking: Sentence on the order of more than two systems; empty without one.
        kind: Kind of the answer, such as ``open``.
        cautions: Reasons why it may be wrong.
        findings: Sentences on further comparisons.
        margin: Sentences on a margin that was stated beforehand.
        at_given_thresholds: Sentences on the figures at given and at declared thresholds.
        scope: What the answer is about.
        claims: Differences in the primary figure between two systems, which the headline states.
        reading: Sentences on how the truth and the systems were read.
        names_images: True if such a sentence, or a caution on reading, names an image.
        target: Name of the target (findings that make an image positive) that was evaluated.
        policy: Operating point, such as ``max_f1``, whose threshold is used for everything that is
            shown at a single threshold.
        policies: Operating points for which at least one system has a threshold.
        thresholds: For each system by name, the score threshold by operating point, such as
            ``max_f1``; None if the operating point has no threshold.
        charts: What charts and their notes need beside the curves.
        exposure: Results on images that a system may have seen.
        seed: Random seed of the bootstrap resampling.
        overlays: By image id, the file name of the image with boxes and contours drawn on it.
        call: Systems, data and options of the command that made the comparison, by key; None if it
            was not a command.
        files: SHA-256 of each Parquet table of the report, by file name.
    """

    headline: str
    ranking: str
    kind: str
    cautions: Items[str]
    findings: Items[str]
    margin: Items[str]
    at_given_thresholds: Items[str]
    scope: str
    claims: Items[dict[str, Any]]
    notes: Items[str]
    reading: Items[str]
    names_images: bool
    target: str
    systems: Items[str]
    joint: JointMembers | None
    made_of_others: dict[str, Items[str]]
    policy: str
    policies: Items[str]
    thresholds: dict[str, NumbersByName]
    declared: dict[str, dict[str, Any]]
    costs: dict[str, dict[str, Any] | None]
    charts: dict[str, Any]
    exposure: Items[dict[str, Any]]
    provenance: ReportOrigin
    table: AnswerTable
    seed: Whole
    overlays: dict[str, str]
    call: dict[str, Any] | None
    files: Digests = Field(default_factory=dict)

    @property
    def joint_system(self) -> JointSystem | None:
        """The joint system as sentences and cases take it; None without one."""
        return None if self.joint is None else JointSystem(self.joint.name, self.joint.members)


def answer_record(comparison: Comparison) -> dict[str, Any]:
    """Return the answer of a comparison and the facts behind it, by the keys of `AnswerInfo`."""
    answer, joint = comparison.answer, comparison.joint
    record = {
        "headline": answer.headline,
        "ranking": answer.ranking,
        "kind": answer.kind,
        "cautions": [caution.text for caution in answer.cautions],
        "findings": [each.text for each in answer.conclusions],
        "margin": [each.text for each in answer.conclusions if each.kind == "margin"],
        "at_given_thresholds": given_threshold_lines(comparison),
        "scope": " ".join(answer.scope.values()),
        "claims": [claim.to_dict() for claim in answer.claims],
        "notes": [note.text for note in comparison.notes],
        "reading": [note.text for note in comparison.notes if note.kind == "reading"],
        "names_images": any(note.names_images for note in comparison.notes),
        "target": comparison.finding,
        "systems": comparison.names,
        "joint": joint and {"name": joint.name, "members": list(joint.members)},
        "made_of_others": comparison.made_of_others,
        "policy": comparison.main_policy,
        "policies": comparison.policies,
        "thresholds": {name: each.thresholds for name, each in comparison.systems.items()},
        "declared": {name: asdict(each) for name, each in comparison.declared.items()},
        "costs": {name: each.cost for name, each in comparison.systems.items()},
        "charts": chart_facts(comparison),
        "exposure": [result.to_dict() for result in comparison.exposures],
        "provenance": comparison.provenance,
    }
    return record if comparison.patients_known else image_worded_record(record, comparison.names)
