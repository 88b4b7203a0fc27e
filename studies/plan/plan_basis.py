"""The basis of a planned study: stated assumptions, or the results of a pilot study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.statistics.obuchowski_rockette import Components
from cxr_compare.studies.plan import plan_sentences
from cxr_compare.studies.plan.sample_size import AssumedPlan, CrossedPlan, PilotPlan, Plan
from cxr_compare.studies.readers.reader_record import ReadersRecord

_READERS = "readers.json"


_CORRELATION = 0.5


_USUAL_READERS = (3, 5, 10)


@dataclass(frozen=True)
class PlanBasis:
    """One or several plans of a study, with the assumptions or the pilot study they come from.

    A plan computes the precision of the study for any number of patients.

    Attributes:
        plans: Plans by name, such as ``5 readers``; a single plan has an empty name.
        compares: True if the study compares two systems (models) or two modalities (ways of
            reading).
        facts: Assumptions, or numbers of the pilot study, as the file ``plan.json`` stores them.
        notes: Sentences on the assumptions; may be empty.
    """

    plans: Mapping[str, Plan]
    compares: bool
    facts: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Plan:
        """First of the plans. Assumptions that all plans share can be read from it."""
        return next(iter(self.plans.values()))

    @property
    def difference(self) -> float:
        """Difference of the two assumed AUROCs; 0 if the plan has no assumed AUROCs."""
        aurocs = self.facts.get("aurocs", (0.0,))
        return float(abs(aurocs[0] - aurocs[-1]))


def plans_assumed(
    aurocs: Sequence[float],
    prevalence: float | None,
    *,
    correlation: float | None = None,
    images: Sequence[int | str] = (),
    within: float | None = None,
    seeds: Sequence[int] = (),
    seed_deviation: float | None = None,
    seed_correlation: float | None = None,
    readers: Sequence[int] = (),
    reader_deviation: float | None = None,
) -> PlanBasis:
    """Plan a study from assumptions: one plan for each number of images per patient and of seeds.

    If `readers` or `reader_deviation` is given, there is one plan for each number of readers
    instead.

    `aurocs` are those of one system or of the two to compare, in (0, 1), and `prevalence`, in (0,
    1), must be given. Correlations are those of scores within a class, in [0, 1): of two systems
    for the same image (0.5 if None), of one system for two images of a patient (`within`, 0.5 if
    None), and of two trainings for one image. `images` may name data sets (``rsna``, ``nih``) whose
    numbers of images per patient are used; without them it is one. Without `seeds` there is one
    training, and the deviation of the AUROC between trainings is None. `readers` are at least 2; 3,
    5 and 10 if empty; `reader_deviation` is in [0, 0.5). Raises InputError if an assumption is
    missing, is out of its range, or does not fit the others.
    """
    if not aurocs or prevalence is None:
        raise InputError("plan: without a pilot give --auroc A,B and --prevalence")
    if len(aurocs) > 2 or not all(0 < auroc < 1 for auroc in aurocs):
        values = ",".join(f"{auroc:g}" for auroc in aurocs)
        raise InputError(f"plan --auroc {values}: give one or two, between 0 and 1")
    if not 0 < prevalence < 1:
        raise InputError(f"plan --prevalence {prevalence}: is not between 0 and 1")
    if readers or reader_deviation is not None:
        return _assumed_readers(aurocs, prevalence, readers, reader_deviation)
    for name, value in (("--correlation", correlation), ("--within", within)):
        if value is not None and not 0 <= value < 1:
            raise InputError(f"plan {name} {value}: is not from 0 to below 1")
    images = images or [1]
    seeds = seeds or [1]
    if correlation is not None and len(aurocs) == 1:
        raise InputError("plan --correlation: is of two systems; leave it out, or give --auroc A,B")
    if within is not None and list(images) == [1]:
        raise InputError(
            "plan --within: is for several images of a patient; give --images, 2 or more"
        )
    between = _CORRELATION if correlation is None else correlation
    _check_seeds(seeds, seed_deviation, seed_correlation, between if len(aurocs) == 2 else 0.0)
    plans = {
        _plan_name(images, of_patient, seeds, n_seeds): AssumedPlan(
            tuple(aurocs),
            prevalence,
            between,
            of_patient,
            _CORRELATION if within is None else within,
            n_seeds,
            seed_deviation or 0.0,
            1.0 if seed_correlation is None else seed_correlation,
        )
        for of_patient in images
        for n_seeds in seeds
    }
    first = asdict(next(iter(plans.values())))
    data_sets = [name for name in images if isinstance(name, str)]
    note = plan_sentences.assumed_images(len(data_sets) < len(images), data_sets)
    notes = () if list(images) == [1] else (note,)
    facts = {"kind": "assumed", **first, "images": list(images), "seeds": list(seeds)}
    return PlanBasis(plans, len(aurocs) == 2, facts, notes)


def _check_seeds(
    seeds: Sequence[int], deviation: float | None, alike: float | None, between: float
) -> None:
    """Refuse incomplete assumptions on trainings.

    The deviation is that of the AUROC between trainings. `alike` is the correlation of two
    trainings' scores within a class, and `between` that of two systems' scores.
    """
    if max(seeds) == 1 and (deviation, alike) != (None, None):
        option = "--seed-correlation" if deviation is None else "--seed-deviation"
        raise InputError(f"plan {option}: is for several trainings; give --seeds, 2 or more")
    if max(seeds) > 1 and (deviation is None or alike is None):
        raise InputError(
            "plan --seeds: how far trainings differ is not known; give --seed-deviation, of their "
            "AUROCs, as 0.01, and --seed-correlation, of their scores within a class, as 0.8"
        )
    if alike is not None and not between <= alike <= 1:
        raise InputError(f"plan --seed-correlation {alike:g}: is not from {between:g} to 1")


def _assumed_readers(
    aurocs: Sequence[float], prevalence: float, readers: Sequence[int], deviation: float | None
) -> PlanBasis:
    if len(aurocs) != 2 or (readers and min(readers) < 2):
        raise InputError("plan --readers: give --auroc A,B, and 2 readers or more")
    if deviation is None or not 0 <= deviation < 0.5:
        raise InputError(
            "plan --readers: how far readers differ is not known; give --reader-deviation, the "
            "standard deviation of their AUROCs, as 0.03, or the folder of a pilot"
        )
    plans = {
        counted(number, "reader"): CrossedPlan.assumed(aurocs, prevalence, number, deviation)
        for number in readers or _USUAL_READERS
    }
    facts = {"aurocs": list(aurocs), "prevalence": prevalence, "reader_deviation": deviation}
    note = plan_sentences.ASSUMED_READERS
    return PlanBasis(plans, True, {"kind": "assumed readers", **facts}, (note,))


def plans_of_readers(folder: Path, readers: Sequence[int] = ()) -> PlanBasis:
    """Plan a reader study from the results of a pilot study: one plan for each number of readers.

    `folder` is that of `cxr readers`. Readers are at least 2; 3, 5 and 10 if empty. ``facts`` has
    the AUROCs and the variances of the pilot study, and ``compares`` is True for two systems.
    Raises InputError if the pilot study has no variance components, or a number of readers is below
    2.
    """
    if readers and min(readers) < 2:
        raise InputError("plan --readers: give 2 or more")
    pilot = ReadersRecord.read(folder / _READERS)
    crossed = pilot.crossed.get(pilot.primary)
    if crossed is None or crossed.components is None:
        raise InputError(
            f"{folder}: has no variance components; a pilot needs two modalities, each read by "
            "every reader"
        )
    parts = crossed.components.to_json()
    share = pilot.n_positive / pilot.n_cases
    facts = {
        "kind": "readers",
        "pilot": str(folder),
        "pilot_cases": pilot.n_cases,
        "share_positive": share,
        "components": parts,
    }
    plans = {
        counted(number, "reader"): CrossedPlan(Components(**parts), pilot.n_cases, share, number)
        for number in readers or _USUAL_READERS
    }
    return PlanBasis(plans, True, facts)


def plans_of_predictions(parts: Mapping[str, Any], seeds: Sequence[int]) -> PlanBasis:
    """Plan a study from the predictions of a pilot study: one plan for each number of trainings.

    For each of one or two systems, `parts` has the AUROC of each of its trainings with the
    contributions of the patients, from
    `evaluation.sources.stored_predictions.pilot_of_predictions`. Without `seeds` the number of
    trainings is that of the pilot study.
    """
    systems = list(parts.values())
    plans = {
        _plan_name([], 0, seeds, number): PilotPlan(systems, [number] * len(systems))
        for number in seeds
    } or {"": PilotPlan(systems)}
    first = next(iter(plans.values()))
    facts = {
        "kind": "pilot",
        "systems": list(parts),
        "pilot_patients": first.patients,
        "pilot_positives": first.positives,
        "images_of_a_patient": first.images,
        "variance_factors": list(first.variance_range()),
    }
    return PlanBasis(plans, len(systems) == 2, facts)


def _plan_name(
    all_images: Sequence[int | str], images: int | str, all_seeds: Sequence[int], seeds: int
) -> str:
    """Return the assumptions in which a plan differs from the others; empty for a single plan."""
    several_images = len(all_images) > 1
    several_seeds = len(all_seeds) > 1
    return plan_sentences.plan_name(
        images if several_images else None, seeds if several_seeds else None
    )
