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

    Example:
        >>> plans_assumed([0.85, 0.9], prevalence=0.3).compares
        True
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

    Args:
        aurocs: Assumed AUROC of one system (model), or of the two systems to compare, in (0, 1).
        prevalence: Share of positive patients, in (0, 1); it must be given.
        correlation: Correlation of two systems' scores of the same image, among the positive and
            among the negative images, in [0, 1); 0.5 if None.
        images: Numbers of images of a patient, or names of data sets (``rsna``, ``nih``) whose
            numbers are used; one image per patient if empty.
        within: Correlation of one system's scores of two images of a patient, in [0, 1); 0.5 if
            None.
        seeds: Numbers of trainings of each system, with different random seeds; one training if
            empty.
        seed_deviation: Standard deviation of the AUROC between trainings; None with one training.
        seed_correlation: Correlation of the scores of two trainings for one image, among the
            positive and among the negative images; None with one training.
        readers: Numbers of readers, at least 2; 3, 5 and 10 if empty.
        reader_deviation: Standard deviation of the AUROC between readers, in [0, 0.5); None without
            readers.

    Returns:
        The plans and the assumptions.

    Raises:
        InputError: An assumption is missing, is out of its range, or does not fit the others.

    Example:
        >>> basis = plans_assumed([0.85, 0.9], prevalence=0.3, correlation=0.5)
        >>> basis.compares, round(basis.difference, 3)
        (True, 0.05)
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

    Args:
        seeds: Numbers of trainings.
        deviation: Standard deviation of the AUROC between trainings.
        alike: Correlation of two trainings' scores within a class.
        between: Correlation of two systems' scores within a class.
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

    Args:
        folder: Folder with the results of the pilot study, written by the command `cxr readers`.
        readers: Numbers of readers, at least 2; 3, 5 and 10 if empty.

    Returns:
        One plan for each number of trainings. A plan computes the precision of the study for any
        number of patients. The field ``facts`` has the AUROCs and the variances of the pilot study,
        and ``compares`` is True for two systems.

    Raises:
        InputError: The pilot study has no variance components, or a number of readers is below 2.

    Example:
        >>> import tempfile
        >>> from cxr_compare.data_prep.contracts.records import write_json
        >>> components = dict.fromkeys(("reader", "interaction", "cov1", "cov2", "cov3"), 0.0003)
        >>> pilot = {"primary": "auroc", "n_cases": 100, "n_positive": 40}
        >>> pilot["crossed"] = {"auroc": {"components": {**components, "error": 0.0009}}}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_json(Path(folder) / "readers.json", "readers", pilot)
        ...     basis = plans_of_readers(Path(folder), [5])
        >>> list(basis.plans)
        ['5 readers']
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

    Args:
        parts: For each system (model) by its name, the AUROC of each of its trainings with the
            contributions of the patients, as
            `evaluation.sources.stored_predictions.pilot_of_predictions` returns them. There are one
            or two systems.
        seeds: Numbers of trainings of each system in the planned study; the number of the pilot
            study if empty.

    Returns:
        The plans and numbers of the pilot study.

    Example:
        >>> from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
        >>> truth = [0, 0, 0, 1, 1, 1]
        >>> parts = {
        ...     "A": [auroc_parts(truth, [0.1, 0.4, 0.3, 0.2, 0.8, 0.9], range(6), 6)],
        ...     "B": [auroc_parts(truth, [0.2, 0.1, 0.6, 0.5, 0.7, 0.9], range(6), 6)],
        ... }
        >>> plans_of_predictions(parts, []).compares
        True
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
