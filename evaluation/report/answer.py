"""Content of ``answer.json``: the answer of a comparison, and the facts behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer

from cxr_compare.data_prep.base.provenance import MadeRecord, provenance
from cxr_compare.data_prep.base.records import Digests, Items, NumbersByName, Record
from cxr_compare.data_prep.predictions import MadeOn
from cxr_compare.evaluation.compare import UNITS, Comparison
from cxr_compare.evaluation.joint import METHOD
from cxr_compare.evaluation.metrics import claimed
from cxr_compare.evaluation.notes import worst_first
from cxr_compare.evaluation.statistics.figure_text import number, p_equation
from cxr_compare.evaluation.statistics.intervals import interval_text
from cxr_compare.evaluation.verdict.cautions import cautions as cautions_of
from cxr_compare.evaluation.verdict.cautions import one_on_training, without_scores
from cxr_compare.evaluation.verdict.claims import Claim, Family
from cxr_compare.evaluation.verdict.verdict import state_verdict


def _known(claim: Any) -> Any:
    """Leave out what is unknown in a claim of the file, and what follows from the rest."""
    if not isinstance(claim, dict):
        return claim
    return {key: value for key, value in claim.items() if value is not None and key != "higher"}


_StoredClaim = Annotated[Claim, BeforeValidator(_known), PlainSerializer(Claim.to_dict)]


class ReportOrigin(MadeRecord):
    """Data set, systems with their records, resamples and versions behind a comparison.

    `options` are those of the call as they were given, and `files` has name, size and SHA-256 of
    what the user gave.
    """

    data_set: MadeOn | None = None
    replicates: int
    seed: int
    systems: dict[str, dict[str, Any]] = Field(default_factory=dict)
    options: dict[str, Any] = Field(default_factory=dict)
    files: Items[dict[str, Any]] = ()


class ReportAnswer(Record, kind="answer"):
    """Content of ``answer.json``, which is written last and marks a report as complete.

    Attributes:
        sentences: The headline without its opening: the answer, and those on the margin and on the
            joint system.
        must_say: Sentences that belong to the headline wherever it is quoted: the cautions, what
            was not shown, which boxes have no scores, and whose training, or which baseline, is
            unknown.
        cautions: Sentences on what may make the answer wrong, the most harmful first.
        findings: Sentences on whether each system points at lesions, and on detectors of which AP50
            and FROC show another one to be higher.
        claims: Differences that are tested, as `Claim`.
        notes: Further remarks, such as how labels and results were read.
        counts: Numbers of evaluated images (or units), patients and positive images.
        primary: Metric of the answer, and the policy of its threshold.
        policy: Policy of the threshold for results that are shown at one threshold only.
        thresholds: Score threshold by system and policy; boxes without scores have none.
        with_boxes: Systems that give boxes of their own.
        joint: Name of the system that joins others, `members`; empty without one.
        margin: The reference system, for each of the primary ``figures`` its margin and the
            decision on each other system with the interval of the difference to it, and ``gate``,
            the decision on all; empty without a margin.
        ranks: Lowest and highest rank of each of three systems or more in the primary figure.
        by_image_score: Primary figure of each detector by each rule that reduces its boxes to the
            score of an image; empty for a figure of places.
        overlays: File of the drawing of each example image, by image id.
        n_findings: Number of findings over which corrected p-values are corrected.
    """

    headline: str
    must_say: Items[str]
    sentences: Items[str]
    kind: str
    cautions: Items[str]
    findings: Items[str]
    claims: Items[_StoredClaim]
    notes: Items[str]
    target: str
    title: str
    unit: str
    counts: dict[str, int]
    primary: Items[str]
    primary_title: str
    systems: Items[str]
    with_boxes: Items[str]
    joint: str
    members: Items[str]
    policy: str
    policies: Items[str]
    thresholds: dict[str, NumbersByName]
    provenance: ReportOrigin
    margin: dict[str, Any] = Field(default_factory=dict)
    ranks: dict[str, tuple[int, int]] = Field(default_factory=dict)
    n_findings: int = 1
    by_image_score: dict[str, dict[str, float]] = Field(default_factory=dict)
    overlays: dict[str, str] = Field(default_factory=dict)
    files: Digests = Field(default_factory=dict)

    @property
    def primary_metrics(self) -> list[str]:
        """Metrics that answer the question: that of `primary` first."""
        answers = [claim.metric for claim in self.claims_of("answer")]
        return list(dict.fromkeys([self.primary[0], *answers]))

    def claims_of(self, *families: Family) -> list[Claim]:
        """Return the claims of some families."""
        return [claim for claim in self.claims if claim.family in families]

    @property
    def primary_claims(self) -> list[Claim]:
        """Differences between single systems in the primary figure."""
        return [claim for claim in self.claims_of("answer") if claim.metric == self.primary[0]]

    @property
    def shown_pairs(self) -> list[tuple[str, str]]:
        """Pairs of systems of which the first was shown to be higher in the primary figure."""
        shown = [claim.falling for claim in self.primary_claims if claim.higher]
        return [(claim.first, claim.second) for claim in shown]

    @property
    def box_figures(self) -> list[str]:
        """Figures of boxes that stand in every main table, as all systems give their own boxes."""
        return claimed(of_boxes=True) if [*self.with_boxes] == self.single else []

    @property
    def single(self) -> list[str]:
        """Systems that join no others."""
        return [name for name in self.systems if name != self.joint]

    @property
    def joint_is_higher(self) -> bool:
        """True if the joint system was shown to exceed each of its members."""
        return all(claim.higher == self.joint for claim in self.claims_of("joint"))

    def both_line(self, order: Sequence[str]) -> str:
        """Return whether all systems together are better than each alone.

        The difference is that from the first in order of those that they do not exceed, else of
        all.
        """
        claims = {claim.second: claim for claim in self.claims_of("joint")}
        open_ = [name for name, claim in claims.items() if claim.higher != self.joint]
        quoted = next((name for name in order if name in (open_ or claims)), None)
        if quoted is None:
            return ""
        gap = claims[quoted]
        value = f"{number(gap.estimate)}, {interval_text(gap) or gap.note}"
        all_of = f"Joined scores ({self.joint})"
        if not open_:
            return f"{all_of}: better than each alone (than {quoted} by {value})."
        if gap.excludes_zero and gap.estimate > 0:
            value += f", {'corrected ' if gap.corrected else ''}{p_equation(gap.p_holm)}"
        return f"{all_of}: not shown to be better than {quoted} alone (difference {value})."

    @property
    def units(self) -> str:
        """Plural of the unit: images, studies or patients."""
        return UNITS[self.unit]


def answer_of(
    comparison: Comparison, options: Mapping[str, Any], files: Sequence[dict[str, Any]]
) -> ReportAnswer:
    """Return the answer of a comparison, with the options and files of the call that made it."""
    truth, systems = comparison.truth, comparison.systems
    said = vars(state_verdict(comparison)).copy()
    limits = said.pop("limits")
    records = {name: dict(system.output.record) for name, system in systems.items()}
    for name, record in records.items():
        if rule := record.pop("rule", None):
            calibration = systems[name].choices.calibration
            record["joint"] = {
                "method": METHOD,
                "rule": asdict(rule),
                "calibration": None if calibration is None else asdict(calibration),
            }
    counts = {"images": len(truth.ids), "positive": int(truth.positive.sum())}
    if truth.patients_known:
        counts["patients"] = len(set(truth.owners))
    all_notes = one_on_training([*comparison.notes, *cautions_of(comparison)], comparison.single)
    cautions = worst_first(all_notes)
    notes = dict.fromkeys(note.with_page for note in all_notes if not note.caution)
    quoted = [note.text for note in cautions]
    unknown = [note.text for note in all_notes if note.is_said]
    unscored = without_scores([name for name, system in systems.items() if not system.output.ranks])
    return ReportAnswer(
        **said,
        must_say=(*quoted, *limits, *unscored, *unknown),
        cautions=tuple(note.with_page for note in cautions),
        notes=tuple(notes),
        target=truth.finding,
        title=truth.finding_title,
        unit=comparison.unit,
        counts=counts,
        primary=comparison.protocol.key,
        primary_title=comparison.primary_title,
        systems=tuple(systems),
        with_boxes=tuple(name for name in comparison.single if name in comparison.with_boxes),
        joint=comparison.joint,
        members=comparison.members,
        policy=comparison.main_policy,
        policies=tuple(comparison.policies),
        thresholds={
            name: dict(system.choices.thresholds) if system.output.ranks else {}
            for name, system in systems.items()
        },
        provenance=ReportOrigin(
            **provenance(),
            data_set=MadeOn(**truth.record) if truth.record else None,
            replicates=comparison.resamples.n_replicates,
            seed=comparison.resamples.seed,
            systems=records,
            options=dict(options),
            files=tuple(files),
        ),
        n_findings=comparison.n_findings,
        by_image_score=comparison.by_image_score,
    )
