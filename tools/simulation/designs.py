"""Designs with a known truth, and what each of them counts: wrong claims, and coverage.

A measure draws one data set and returns named values: 1 if a claim was made or an interval has
the truth, 0 if not, or a figure. NaN is not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from cxr_compare.evaluation.figures import Figure
from cxr_compare.evaluation.statistics.clustered_auroc import auroc_parts
from cxr_compare.evaluation.thresholds import choose_threshold
from tools.simulation.box_designs import box_measure, population, reduction_measure
from tools.simulation.group_designs import Named, groups, guarantees, shortcuts
from tools.simulation.guarantee_designs import risk_control
from tools.simulation.hospital_designs import delays, quiet_hospitals
from tools.simulation.joint_designs import joined, joined_boxes
from tools.simulation.makers import (
    ALIKE,
    NOISE,
    Noise,
    Sample,
    draw,
    draw_boxed,
    recall_at,
    skill_of,
    skill_spread,
)
from tools.simulation.mark_designs import mark_designs, mark_measure, true_figures
from tools.simulation.monitor_designs import faults, streams
from tools.simulation.overlap_designs import overlap_measure, true_overlap_figures
from tools.simulation.policy_designs import policies
from tools.simulation.product import Evaluated, calibrations, evaluate
from tools.simulation.reader_designs import (
    NESTED_SIZES,
    model_designs,
    model_measure,
    nested_measure,
    reader_measure,
    true_auroc,
)
from tools.simulation.reference_designs import reference_designs
from tools.simulation.study_designs import CURVES, FEW_READERS, FOLDS, PLANS
from tools.simulation.use_designs import predictive, verdicts

Found = dict[str, float]
Measure = Callable[[np.random.Generator], Found]

REPLICATES = 400
"""Number of bootstrap resamples of each simulated comparison; the program's default is 2,000."""
AUROC = 0.85
AT_THRESHOLD = ("recall", "specificity", "f1", "accuracy")
_TRUTH_SETS = 4000
_IMAGES = {"one": "one image a patient", "rsna": "images as in RSNA/NIH"}
_TESTED = 0.25
"""Share of data sets for which p-values are computed, too, because they take most of the time."""


@dataclass(frozen=True)
class Case:
    """One row of a design.

    Attributes:
        design: Name of the design.
        name: Name of the row, as the page shows it.
        make: Function that returns the measure; its generator is for true values that are
            simulated.
        share: Share of the requested data sets that is drawn, for cases that take long.
    """

    design: str
    name: str
    make: Callable[[np.random.Generator], Measure]
    share: float = 1.0


def _evaluate(
    rng: np.random.Generator,
    validation: Sample,
    test: Sample,
    seeds: Sequence[int],
    policies: Sequence[str] = ("max_f1",),
) -> Evaluated:
    """Evaluate drawn samples; the seed of the resamples is drawn after the samples."""
    seed = int(rng.integers(2**31))
    return evaluate(validation, test, seeds, replicates=REPLICATES, seed=seed, policies=policies)


def _claimed(differences: Sequence[Figure]) -> float:
    """Return 1 if a sentence claims any difference, else 0."""
    return float(any(each.excludes_zero for each in differences))


def _sentences(found: Evaluated) -> Found:
    """Return which claims the opening makes: in its headline, and in a sentence below it."""
    headline = found.verdict.headline
    told = " was better than " in headline or "shown to exceed" in headline
    told = told or found.verdict.kind == "decided"
    finding = any(each.decided for each in found.verdict.conclusions)
    return {"headline": float(told), "finding": float(finding), "any": float(told or finding)}


def _covers(figure: Figure, truth: float) -> float:
    return float(figure.ci_low <= truth <= figure.ci_high) if figure.bounded else np.nan


def _at_thresholds(found: Evaluated) -> Found:
    each: Found = {}
    for policy in found.policies:
        for metric in AT_THRESHOLD:
            gaps = found.pairs(metric, policy)
            each[f"{policy}|{metric}"] = _claimed(gaps)
            p_value = found.p_value(metric, policy)
            each[f"{policy}|{metric}|test"] = np.nan if p_value is None else float(p_value < 0.05)
    return each


def _threshold_case(
    n_validation: int, n_test: int, clusters: str = "one", auroc: float = AUROC
) -> Case:
    name = f"{n_validation} / {n_test} patients, {_IMAGES[clusters]}"
    name += f", AUROC {auroc:.2f}" if auroc != AUROC else ""
    skill = skill_of(auroc)
    skills = [[skill]] * 2

    def make(rng: np.random.Generator) -> Measure:
        chosen = [
            _max_f1(draw(rng, n_validation, [[skill]], clusters=clusters))
            for _ in range(_TRUTH_SETS)
        ]
        true_recall = float(np.mean([recall_at(skill, t) for t in chosen if t is not None]))

        def measure(rng: np.random.Generator) -> Found:
            validation = draw(rng, n_validation, skills, clusters=clusters)
            test = draw(rng, n_test, skills, clusters=clusters)
            found = evaluate(
                validation,
                test,
                [1, 1],
                replicates=REPLICATES,
                seed=int(rng.integers(2**31)),
                tested=rng.random() < _TESTED,
            )
            return {
                **_sentences(found),
                **_at_thresholds(found),
                "recall covers": _covers(found.figures.get("A", "recall", "max_f1"), true_recall),
            }

        return measure

    return Case("thresholds", name, make)


def _max_f1(sample: Sample) -> float | None:
    return choose_threshold(sample.y_true, sample.scores[0], "max_f1").threshold


def thresholds() -> Iterator[Case]:
    """Yield the cases of two equal systems whose thresholds are chosen on few validation images."""
    for clusters in ("one", "rsna"):
        for sizes in ((40, 60), (150, 200), (40, 600)):
            yield _threshold_case(*sizes, clusters)
    for sizes in ((40, 60), (150, 200)):
        yield _threshold_case(*sizes, auroc=0.99)


def _auroc_case(
    name: str,
    n_patients: int,
    clusters: str,
    n_positive: int | None = None,
    noise: Noise = NOISE,
) -> Case:
    name += ", alike by 0.8" if noise is ALIKE else ""
    skills = [[skill_of(AUROC)]] * 2

    def sample(rng: np.random.Generator) -> Sample:
        return draw(rng, n_patients, skills, clusters=clusters, n_positive=n_positive, noise=noise)

    def make(rng: np.random.Generator) -> Measure:
        seen = []
        for _ in range(min(_TRUTH_SETS, 1_200_000 // n_patients)):
            drawn = sample(rng)
            for row in drawn.scores:
                parts = auroc_parts(drawn.y_true, row, drawn.patients, drawn.n_patients)
                seen.append(np.nan if parts is None else parts.value)
        truth = float(np.nanmean(seen))

        def measure(rng: np.random.Generator) -> Found:
            found = _evaluate(rng, sample(rng), sample(rng), [1, 1], policies=())
            figures = [found.figures.get(each, "auroc") for each in "AB"]
            gap = found.figures.difference("A", "B", "auroc")
            return {
                **_sentences(found),
                "covers": float(np.mean([_covers(figure, truth) for figure in figures])),
                "difference covers": _covers(gap, 0.0),
                "no interval": float(not gap.bounded),
                "width": gap.ci_high - gap.ci_low,
            }

        return measure

    return Case("auroc", name, make)


def auroc() -> Iterator[Case]:
    """Yield the cases of intervals of AUROC and of its difference, by images of a patient."""
    for n_patients in (60, 150, 300, 1000):
        yield _auroc_case(f"{n_patients:,} patients, images as in RSNA/NIH", n_patients, "rsna")
    for n_patients in (60, 150):
        name = f"{n_patients} patients, images as in RSNA/NIH"
        yield _auroc_case(name, n_patients, "rsna", noise=ALIKE)
    for n_patients in (60, 300):
        yield _auroc_case(f"{n_patients} patients, one image each", n_patients, "one")
    for noise in (NOISE, ALIKE):
        yield _auroc_case("60 patients, one of them with 100 images", 60, "giant", noise=noise)
    yield _auroc_case("60 patients, one image each, 4 positive", 60, "one", 4)


def _seed_case(k: int, between: float, n_test: int = 200, share: float = 1.0) -> Case:
    name = f"{k} seeds, AUROC between seeds ± {between:.2f}, 100 / {n_test} patients"
    skill = skill_of(AUROC)
    spread = skill_spread(AUROC, between)

    def make(rng: np.random.Generator) -> Measure:
        recalls = []
        for _ in range(_TRUTH_SETS):
            own = skill + spread * rng.standard_normal()
            threshold = _max_f1(draw(rng, 100, [[own]]))
            recalls.append(np.nan if threshold is None else recall_at(own, threshold))
        true_recall = float(np.nanmean(recalls))
        drawn = skill + spread * rng.standard_normal(400_000)
        true_auroc = float(np.mean(ndtr(drawn / np.sqrt(2))))

        def measure(rng: np.random.Generator) -> Found:
            skills = skill + spread * rng.standard_normal((2, k))
            validation = draw(rng, 100, skills)
            test = draw(rng, n_test, skills)
            found = _evaluate(rng, validation, test, [k, k])
            return {
                **_sentences(found),
                "auroc": _claimed(found.pairs("auroc")),
                **_at_thresholds(found),
                "auroc covers": _covers(found.figures.get("A", "auroc"), true_auroc),
                "recall covers": _covers(found.figures.get("A", "recall", "max_f1"), true_recall),
            }

        return measure

    return Case("seeds", name, make, share)


def seeds() -> Iterator[Case]:
    """Yield the cases of two equal recipes, each trained several times."""
    for k in (2, 3, 5):
        yield _seed_case(k, 0.03)
    for k in (2, 3, 5):
        yield _seed_case(k, 0.03, 1000, share=0.5)
    yield _seed_case(3, 0.0)


def _several_case(count: int, n_test: int, *, share: float = 1.0, tied: bool = False) -> Case:
    name = f"{count} systems, 150 / {n_test} patients"
    name += ", the same scores" if tied else ""
    skills = [[skill_of(AUROC)]] * (1 if tied else count)

    def measure(rng: np.random.Generator) -> Found:
        validation = draw(rng, 150, skills)
        test = draw(rng, n_test, skills)
        if tied:
            validation = validation.repeated(count)
            test = test.repeated(count)
        found = _evaluate(rng, validation, test, [1] * count)
        named = " had the highest " in found.verdict.headline
        return {**_sentences(found), "highest": float(named)}

    return Case("several", name, lambda _: measure, share)


def several() -> Iterator[Case]:
    """Yield the cases of more than two equal systems, of which one may be called better."""
    yield _several_case(3, 200, share=0.6)
    yield _several_case(6, 200, share=0.3)
    yield _several_case(3, 60, share=0.6)
    yield _several_case(3, 200, share=0.2, tied=True)


def _power_case(first: float, second: float, n_test: int, clusters: str = "one") -> Case:
    name = f"AUROC {first:.2f} and {second:.2f}, 150 / {n_test} patients"
    name += "" if clusters == "one" else f", {_IMAGES[clusters]}"
    skills = [[skill_of(first)], [skill_of(second)]]

    def measure(rng: np.random.Generator) -> Found:
        validation = draw(rng, 150, skills, clusters=clusters)
        found = _evaluate(rng, validation, draw(rng, n_test, skills, clusters=clusters), [1, 1])
        each: Found = {}
        for name, policy in (
            ("auroc", ""),
            ("f1", "max_f1"),
            ("recall", "max_f1"),
        ):
            gap = found.figures.difference("A", "B", name, policy)
            if gap.known:
                each[f"{name} right"] = float(gap.excludes_zero and gap.estimate > 0)
                each[f"{name} wrong"] = float(gap.excludes_zero and gap.estimate < 0)
        return each

    return Case("power", name, lambda _: measure, 0.5)


def power() -> Iterator[Case]:
    """Yield the cases of a true difference, which may be claimed in either direction."""
    yield _power_case(0.90, 0.85, 200)
    yield _power_case(0.90, 0.80, 200)
    yield _power_case(0.90, 0.80, 60)
    yield _power_case(0.90, 0.80, 150, "rsna")
    yield _power_case(0.90, 0.80, 1000)


def _chance_case(auroc: float, n_test: int) -> Case:
    name = f"two systems of AUROC {auroc:.2f}, 150 / {n_test:,} patients"
    skills = [[skill_of(auroc)]] * 2

    def measure(rng: np.random.Generator) -> Found:
        validation = draw(rng, 150, skills)
        test = draw(rng, n_test, skills)
        found = _evaluate(rng, validation, test, [1, 1])
        return {"caution": float(found.cautions_chance), **_sentences(found)}

    return Case("chance", name, lambda _: measure, 0.5)


def chance() -> Iterator[Case]:
    """Yield the cases of systems that guess, which the report should say."""
    for auroc in (0.5, 0.6, 0.85):
        for n_test in (60, 200, 1000):
            yield _chance_case(auroc, n_test)


_AT_PROBABILITY = 0.2
_MANY = 4000


def _calibration_case(n_validation: int, overconfident: float) -> Case:
    name = f"{n_validation} validation images, "
    name += "box scores right" if overconfident == 1 else f"log-odds {overconfident:g} x too large"

    def measure(rng: np.random.Generator) -> Found:
        validation, _ = draw_boxed(rng, n_validation, overconfident)
        test, best = draw_boxed(rng, _MANY, overconfident)
        given = {"raw": test.scores[0], "best": best}
        for kind, fitted in calibrations(validation).items():
            given[kind] = fitted.probability(test.scores[0])
        found: Found = {}
        for kind, probability in given.items():
            called = probability >= _AT_PROBABILITY
            hits = called & test.y_true
            alarms = called & ~test.y_true
            odds = _AT_PROBABILITY / (1 - _AT_PROBABILITY)
            found[f"brier|{kind}"] = float(np.mean((probability - test.y_true) ** 2))
            found[f"benefit|{kind}"] = float(hits.mean() - odds * alarms.mean())
        return found

    return Case("calibration", name, lambda _: measure, 0.5)


def calibration() -> Iterator[Case]:
    """Yield the cases of a detector that finds no box on many images: probabilities by method."""
    for n_validation in (60, 150, 600):
        for overconfident in (1.0, 2.0):
            yield _calibration_case(n_validation, overconfident)


def _reader_case(n_readers: int, *, nested: bool) -> Case:
    how = "with each modality, all different" if nested else "with both modalities"
    name = f"{n_readers} readers {how}, 100 cases"

    def make(rng: np.random.Generator) -> Measure:
        truth = true_auroc(rng)
        return lambda rng: reader_measure(rng, n_readers, nested, truth)

    return Case("readers", name, make, 0.4)


def readers() -> Iterator[Case]:
    """Yield the cases of two equal modalities, read by readers who represent others like them."""
    yield _reader_case(3, nested=False)
    yield _reader_case(5, nested=False)
    yield _reader_case(5, nested=True)


def reader_model() -> Iterator[Case]:
    """Yield the cases of crossed studies from the model of Obuchowski and Rockette."""
    for design in model_designs():
        yield Case("reader_model", design.name, lambda _, of=design: model_measure(of))


def nested_readers() -> Iterator[Case]:
    """Yield the cases of two equal modalities from the same model, each with its own readers."""
    for sizes in NESTED_SIZES:
        name = f"{sizes[0]} and {sizes[1]} readers"
        yield Case("nested_readers", name, lambda _, of=sizes: nested_measure(of))


def _box_case(n_validation: int, n_test: int, clusters: str = "one") -> Case:
    sizes = (n_validation, n_test)

    def make(rng: np.random.Generator) -> Measure:
        truth = population(rng, n_validation, clusters)
        return lambda rng: box_measure(rng, sizes, clusters, truth, REPLICATES)

    return Case("boxes", f"{n_validation} / {n_test} patients, {_IMAGES[clusters]}", make)


def boxes() -> Iterator[Case]:
    """Yield the cases of two equal detectors: figures of points, and of boxes above a score."""
    yield _box_case(40, 60)
    yield _box_case(40, 600)
    yield _box_case(40, 60, "rsna")
    yield _box_case(150, 200)
    yield _box_case(150, 200, "rsna")


def _overlap_case(n_validation: int, n_test: int, clusters: str = "one") -> Case:
    sizes = (n_validation, n_test)

    def make(rng: np.random.Generator) -> Measure:
        truth = true_overlap_figures(rng, n_validation, clusters)
        return lambda rng: overlap_measure(rng, sizes, clusters, truth, REPLICATES)

    return Case("overlaps", f"{n_validation} / {n_test} patients, {_IMAGES[clusters]}", make)


def overlaps() -> Iterator[Case]:
    """Two equal detectors that box a lesion several times: validation chooses which boxes stay."""
    yield _overlap_case(60, 100)
    yield _overlap_case(60, 100, "rsna")
    yield _overlap_case(150, 200)


def _reduction_case(n_validation: int, n_test: int) -> Case:
    sizes = (n_validation, n_test)
    return Case(
        "reductions",
        f"{n_validation} / {n_test} patients, the best reduction where not by chance",
        lambda _: lambda rng: reduction_measure(rng, sizes, (), REPLICATES),
    )


def reductions() -> Iterator[Case]:
    """Yield the cases of two equal detectors whose rule from boxes to a score is chosen."""
    yield _reduction_case(40, 600)
    yield _reduction_case(40, 60)


def _studies(
    design: str, named: Mapping[str, Callable[[np.random.Generator], Measure]]
) -> Callable[[], list[Case]]:
    return lambda: [Case(design, name, make) for name, make in named.items()]


def marks() -> Iterator[Case]:
    """Yield the cases of readers who mark lesions with equal modalities, and an equal system."""
    for name, design in mark_designs().items():
        yield Case("marks", name, lambda rng, of=design: mark_measure(of, *true_figures(rng)))


def _without_luck(named: Callable[[], Iterator[Named]]) -> Callable[[], Iterator[Case]]:
    """Return the cases of measures whose true values need no simulation."""

    def cases() -> Iterator[Case]:
        for name, measure in named():
            yield Case(named.__name__, name, lambda _, found=measure: found, 0.5)

    return cases


def reference() -> Iterator[Case]:
    """Yield the cases of two systems whose figures are corrected for labels with a known error."""
    for name, make in reference_designs():
        yield Case("reference", name, make)


def _guaranteed() -> Iterator[Case]:
    """Yield the cases of guarantees: 4,000 sets for sensitivity, fewer for other figures."""
    for name, measure, share in risk_control():
        yield Case("risk_control", name, lambda _, found=measure: found, share)


DESIGNS: dict[str, Callable[[], Iterable[Case]]] = {
    **{each.__name__: each for each in (thresholds, auroc, seeds, several, power, chance)},
    **{each.__name__: each for each in (calibration, readers, reader_model, nested_readers)},
    **{each.__name__: each for each in (boxes, overlaps, reductions)},
    "folds": _studies("folds", FOLDS),  # equal learners, trained again in each of five folds
    "plans": _studies("plans", PLANS),  # studies of the size that `cxr plan` computes
    "few_readers": _studies("few_readers", FEW_READERS),  # few readers and an equal system
    "curves": _studies("curves", CURVES),  # two models with one learning curve
    **{each.__name__: each for each in (marks, reference)},
    "risk_control": _guaranteed,
}
DESIGNS |= {
    each.__name__: _without_luck(each)
    for each in (groups, guarantees, shortcuts, predictive, verdicts, joined, joined_boxes)
}
DESIGNS["policies"] = lambda: [Case("policies", name, make) for name, make in policies()]
DESIGNS |= {
    "streams": lambda: [
        Case("streams", name, lambda _, of=of: of, 0.3 if "return" in name else 1.0)
        for name, of in streams()
    ],
    "faults": lambda: [Case("faults", name, lambda _, of=of: of, 0.04) for name, of in faults()],
    "quiet_hospitals": lambda: [
        Case("quiet_hospitals", name, lambda _, of=of: of) for name, of in quiet_hospitals()
    ],
    "delays": lambda: [Case("delays", name, lambda _, of=of: of, 0.5) for name, of in delays()],
}
