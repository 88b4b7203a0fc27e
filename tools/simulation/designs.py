"""The designs: one row for each way to draw data, with the claims of the report that are counted.

In most designs all systems are equally good, so that every claim of a difference is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from tools.simulation.draw import (
    ALIKE,
    DETECTOR,
    DOUBLING,
    LABELS_ALIKE,
    NOISE,
    BoxedImages,
    Detector,
    Floats,
    Law,
    Noise,
    Sample,
    constant_boxes,
    draw,
    draw_images,
    skill_of,
    skill_spread,
    suppressed,
)


@dataclass
class Drawn:
    """Arguments of `cxr_compare.compare`.

    Attributes:
        truth: Labels with patients and, if there are validation images, roles.
        systems: Scores or boxes of each system by its name, A first; a list of them for seeds.
        boxes: True boxes.
        options: Further arguments.
    """

    truth: pd.DataFrame
    systems: dict[str, Any]
    boxes: pd.DataFrame | None = None
    options: dict[str, Any] = field(default_factory=dict)


Change = Callable[[np.random.Generator, Drawn], None]
"""Function that changes drawn data in place, for what the columns of a design do not say."""


@dataclass(frozen=True)
class Design:
    """One row of the table of designs.

    Attributes:
        claims: Names of the functions in `tools.simulation.claims` that count the claims.
        auroc: True AUROC of each system; ignored for detectors.
        patients: Number of test patients.
        validation: Number of validation patients; 0 for none.
        images: Number of images of a patient, see `draw.cluster_sizes`.
        positive: Share of positive images.
        n_positive: Exact number of positive images, for one image a patient.
        law: Distribution of the scores.
        noise: Shares of the variance of the noise.
        labels_alike: Correlation of the latent labels of a patient's images.
        seeds: Number of training seeds of each system.
        between_seeds: Standard deviation of the AUROC between seeds.
        detector: Distribution of the boxes of two equal detectors; None for scores.
        at_use: True prevalence where the system is used, and the number of patients on whom it was
            counted; None if it is known.
        changes: What else is done to drawn data.
        options: Further arguments of `cxr_compare.compare`.
        replicates: Number of bootstrap resamples; the program's default is 2,000. Claims about the
            AUROC alone rest on none, and take 100, the fewest.
    """

    name: str
    claims: tuple[str, ...]
    auroc: tuple[float, ...] = (0.85, 0.85)
    patients: int = 100
    validation: int = 0
    images: str = "one"
    positive: float = 0.3
    n_positive: int | None = None
    law: Law = "binormal"
    noise: Noise = NOISE
    labels_alike: float = LABELS_ALIKE
    seeds: int = 1
    between_seeds: float = 0.0
    detector: Detector | None = None
    at_use: tuple[float, int | None] | None = None
    changes: tuple[Change, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    replicates: int = 400

    @property
    def systems(self) -> list[str]:
        """Names of the systems, in the order of their true AUROC."""
        return [chr(ord("A") + number) for number in range(len(self.auroc))]

    def sample(self, rng: np.random.Generator, n_patients: int, skills: Any) -> Sample:
        """Draw labels and scores."""
        return draw(
            rng,
            n_patients,
            skills,
            clusters=self.images,
            prevalence=self.positive,
            n_positive=self.n_positive,
            noise=self.noise,
            law=self.law,
            labels_alike=self.labels_alike,
        )

    def skills(self, rng: np.random.Generator) -> list[list[float]]:
        """Draw the skill of each seed of each system."""
        drawn = []
        for auroc in self.auroc:
            spread = skill_spread(auroc, self.between_seeds) if self.between_seeds else 0.0
            drawn.append(list(skill_of(auroc) + spread * rng.standard_normal(self.seeds)))
        return drawn

    def drawn(self, rng: np.random.Generator, n_test: int | None = None) -> Drawn:
        """Draw validation and test images, of `n_test` patients or of those of the design."""
        sizes = {"val": self.validation, "test": n_test or self.patients}
        if self.detector is None:
            skills = self.skills(rng)
            samples = {role: self.sample(rng, size, skills) for role, size in sizes.items() if size}
            drawn = self._with_scores(samples)
        else:
            drawn = self._with_boxes(
                {
                    role: draw_images(
                        rng, size, self.images, self.detector, prevalence=self.positive
                    )
                    for role, size in sizes.items()
                    if size
                }
            )
        if self.at_use is not None:
            share, of = self.at_use
            counted = "" if of is None else f"{max(rng.binomial(of, share), 1)}/{of}"
            drawn.options["prevalence"] = counted or f"{share}"
        for change in self.changes:
            change(rng, drawn)
        return drawn

    def _with_scores(self, samples: Mapping[str, Sample]) -> Drawn:
        truth = _truth_table(samples)
        scores = np.concatenate([sample.scores for sample in samples.values()], axis=1)
        rows = [pd.Series(row, truth["image_id"]) for row in scores]
        seeds = self.seeds
        systems = {
            name: rows[seeds * number] if seeds == 1 else rows[seeds * number :][:seeds]
            for number, name in enumerate(self.systems)
        }
        return Drawn(truth, systems)

    def _with_boxes(self, images: Mapping[str, BoxedImages]) -> Drawn:
        truth = _truth_table({role: each.sample for role, each in images.items()})
        lesions = pd.concat(
            [_named(each.lesions, role) for role, each in images.items()], ignore_index=True
        )
        systems = {
            name: pd.concat(
                [_named(each.boxes[number], role) for role, each in images.items()],
                ignore_index=True,
            )
            for number, name in enumerate("AB")
        }
        return Drawn(truth.assign(width=1024, height=1024), systems, lesions)


def _truth_table(samples: Mapping[str, Sample]) -> pd.DataFrame:
    tables = []
    for role, sample in samples.items():
        table = pd.DataFrame({"image": np.arange(len(sample.y_true))})
        table = _named(table, role).assign(
            label=sample.y_true * 1.0, patient_id=[f"{role}-p{n}" for n in sample.patients]
        )
        tables.append(table if len(samples) == 1 else table.assign(role=role))
    return pd.concat(tables, ignore_index=True)


def _named(table: pd.DataFrame, role: str) -> pd.DataFrame:
    """Name the images of a role, which a table knows by their index."""
    names = role + "-" + table["image"].astype(str).astype(object)
    return table.drop(columns="image").assign(image_id=names)


def _by_patient(drawn: Drawn, values: Callable[[int], Any]) -> Any:
    """Draw a value for each patient, and return it for each image."""
    codes, names = pd.factorize(drawn.truth["patient_id"])
    return np.asarray(values(len(names)))[codes]


def in_group(
    rng: np.random.Generator, drawn: Drawn, *, share: float, by_image: bool, shift: float = 0.0
) -> None:
    """Draw a group of patients or images; its scores may be higher, which the AUROC does not see.

    The drawn data get the column ``sex`` (by patient) or ``view`` (by image). `shift` is the number
    by which the log-odds of all scores of the group, a share of the data, are higher.
    """
    inside = rng.random(len(drawn.truth)) < share
    if not by_image:
        inside = _by_patient(drawn, lambda count: rng.random(count) < share)
    column, names = ("view", ("AP", "PA")) if by_image else ("sex", ("F", "M"))
    drawn.truth[column] = np.where(inside, *names)
    if shift:
        for name, scores in drawn.systems.items():
            shifted = expit(logit(scores.to_numpy()) + shift * inside)
            drawn.systems[name] = pd.Series(shifted, scores.index)


def with_facts(
    rng: np.random.Generator, drawn: Drawn, *, view_predicts: float | None = None
) -> None:
    """Add view, sex and age, of which at most the view predicts the label, with a known AUROC."""
    truth = drawn.truth
    n_images = len(truth)
    truth["sex"] = _by_patient(drawn, lambda count: rng.choice(["F", "M"], count))
    truth["age"] = _by_patient(drawn, lambda count: rng.integers(20, 90, count))
    truth["view"] = rng.choice(["AP", "PA"], n_images)
    if view_predicts is not None:
        is_right = rng.random(n_images) < view_predicts
        truth["view"] = np.where(is_right == (truth["label"] == 1), "AP", "PA")


def second_adds_nothing(rng: np.random.Generator, drawn: Drawn, *, copy: bool) -> None:
    """Let the second system see noise, or the evidence of the first with more noise."""
    first = drawn.systems["A"]
    noise = rng.standard_normal(len(drawn.truth))
    evidence = logit(first.to_numpy()) + noise if copy else noise
    drawn.systems["B"] = pd.Series(expit(evidence), first.index)


def classifier_second(rng: np.random.Generator, drawn: Drawn, *, kind: str) -> None:
    """Replace the second detector by a classifier: noise, a worse copy, or evidence of its own."""
    ids = drawn.truth["image_id"]
    noise = rng.standard_normal(len(ids))
    best = drawn.systems["A"].groupby("image_id")["score"].max().reindex(ids).fillna(1e-6)
    evidence = {
        "noise": noise,
        "copy": logit(best.to_numpy()) + 2 * noise,
        "own": skill_of(0.85) * drawn.truth["label"].to_numpy() + noise,
    }[kind]
    drawn.systems["B"] = pd.Series(expit(evidence), ids)


def same_scores(rng: np.random.Generator, drawn: Drawn) -> None:
    """Give every system the scores of the first."""
    drawn.systems = dict.fromkeys(drawn.systems, drawn.systems["A"])


def suppressed_second(rng: np.random.Generator, drawn: Drawn) -> None:
    """Let the second detector be the first after a suppression of overlapping boxes."""
    boxes = drawn.systems["A"]
    indexed = boxes.assign(image=pd.factorize(boxes["image_id"])[0])
    drawn.systems["B"] = suppressed(indexed, 0.3).drop(columns="image")


def constant_second(rng: np.random.Generator, drawn: Drawn) -> None:
    """Let the second system give two constant boxes, with the image scores of the first."""
    ids = drawn.truth["image_id"]
    best = drawn.systems["A"].groupby("image_id")["score"].max().reindex(ids).fillna(1e-6)
    drawn.systems["B"] = _named_constant(ids, best.to_numpy())


def _named_constant(ids: pd.Series, scores: Floats) -> pd.DataFrame:
    boxes = constant_boxes(scores)
    return boxes.drop(columns="image").assign(image_id=ids.to_numpy()[boxes["image"]])


_HEAD = ("headline", "marks")
_AUROC = (*_HEAD, "auroc_intervals")
_RATES = ("sentences", "headline", "rate_differences")
_BOXES = ("sentences", "headline", "box_differences")
WIDE = {"rsna": "images as in RSNA", "1-60": "1 to 60 images", "1-3": "1 to 3 images"}


def _auroc_designs() -> list[Design]:
    """Return designs of two equal systems without validation images: the AUROC only."""
    row = partial(Design, claims=_AUROC, replicates=100)
    rows = [
        row(f"AUROC, {n} patients, images as in RSNA", patients=n, images="rsna")
        for n in (60, 150, 300, 1000)
    ]
    rows += [
        row(f"AUROC, {n} patients, images as in RSNA, alike by 0.8", patients=n, images="rsna",
            noise=ALIKE)
        for n in (60, 150)
    ]  # fmt: skip
    rows += [row(f"AUROC, {n} patients, one image", patients=n) for n in (60, 300)]
    name = "AUROC, 60 patients, one with 100 images"
    rows += [row(name, patients=60, images="giant")]
    rows += [row(f"{name}, alike by 0.8", patients=60, images="giant", noise=ALIKE)]
    rows += [row("AUROC, 60 patients, one image, 4 positive", patients=60, n_positive=4)]
    rows += [
        row("AUROC, 40 patients, one image, crossing ROC curves", patients=40, n_positive=16,
            law="crossing"),
        row("AUROC, 80 patients, 1 to 3 images, scores on 5 levels", patients=80, images="1-3",
            law="five levels"),
        row("AUROC, 80 patients, 1 to 3 images, label per image", patients=80, images="1-3",
            labels_alike=0.0),
    ]  # fmt: skip
    for n, images, positive in (
        (40, "1-3", 0.4),
        (80, "1-3", 0.3),
        (40, "1-60", 0.4),
        (80, "1-60", 0.3),
        (300, "1-3", 0.05),
        (300, "1-60", 0.05),
    ):
        name = f"AUROC, skewed, {n} patients, {WIDE[images]}, {100 * positive:.0f} % positive"
        rows.append(
            row(name, auroc=(0.8, 0.8), patients=n, images=images, positive=positive,
                law="skewed", labels_alike=0.75)
        )  # fmt: skip
    for auroc in (0.5, 0.6):
        for n in (60, 200, 1000):
            name = f"AUROC {auroc:.2f} of two systems, {n} patients"
            rows.append(replace(row(name), claims=_HEAD, auroc=(auroc, auroc), patients=n))
    return rows


def _several_designs() -> list[Design]:
    """Return designs of three systems or more, and of one better system."""
    equal = [
        Design("four equal systems, 80 patients, 1 to 3 images", ("sentences", *_HEAD),
               (0.85,) * 4, 80, 50, "1-3"),
        Design("four equal systems, 200 patients", ("sentences", *_HEAD), (0.85,) * 4, 200, 150),
        Design("three equal systems, 60 patients", ("sentences", *_HEAD), (0.85,) * 3, 60, 150),
        Design("three equal systems, 200 patients", ("sentences", *_HEAD), (0.85,) * 3, 200, 150),
        Design("six equal systems, 200 patients", ("sentences", *_HEAD), (0.85,) * 6, 200, 150),
        Design("three systems with the same scores, 200 patients", ("sentences", *_HEAD),
               (0.85,) * 3, 200, 150, changes=(same_scores,)),
    ]  # fmt: skip
    better = [
        Design(f"one of four systems better by 0.08, {n} patients", ("power",),
               (0.90, 0.82, 0.82, 0.82), n, replicates=100)
        for n in (80, 200, 600)
    ]  # fmt: skip
    better += [
        Design(f"AUROC {a:.2f} and {b:.2f}, {n} patients, {name}", ("power",), (a, b), n, 150,
               images)
        for a, b, n, images, name in (
            (0.90, 0.85, 200, "one", "one image"),
            (0.90, 0.80, 200, "one", "one image"),
            (0.90, 0.80, 60, "one", "one image"),
            (0.90, 0.80, 150, "rsna", WIDE["rsna"]),
            (0.90, 0.80, 1000, "one", "one image"),
        )
    ]  # fmt: skip
    return [*equal, *better]


def _threshold_designs() -> list[Design]:
    """Return designs of figures at thresholds that validation images choose."""
    rows = [
        Design(f"thresholds, {v} / {n} patients, {name}", (*_RATES, "rate_intervals"),
               (0.85, 0.85), n, v, images)
        for images, name in (("one", "one image"), ("rsna", WIDE["rsna"]))
        for v, n in ((40, 60), (150, 200), (40, 600))
    ]  # fmt: skip
    rows += [
        Design(f"thresholds, {v} / {n} patients, AUROC 0.99", (*_RATES, "rate_intervals"),
               (0.99, 0.99), n, v)
        for v, n in ((40, 60), (150, 200))
    ]  # fmt: skip
    rows += [
        Design("thresholds, E1: 40 / 40 patients, one image, skewed", (*_RATES, *_HEAD),
               (0.85, 0.85), 40, 40, positive=0.4, law="skewed"),
        Design("thresholds, E2: 50 / 80 patients, 1 to 60 images, skewed", (*_RATES, *_HEAD),
               (0.8, 0.8), 80, 50, "1-60", law="skewed", labels_alike=0.75),
        Design("thresholds, E3: 300 / 300 patients, 5 % positive, skewed", (*_RATES, *_HEAD),
               (0.8, 0.8), 300, 300, "1-3", positive=0.05, law="skewed", labels_alike=0.75),
        Design("thresholds, E6: 50 / 80 patients, scores on 5 levels", (*_RATES, *_HEAD),
               (0.85, 0.85), 80, 50, "1-3", law="five levels"),
    ]  # fmt: skip
    rows += [
        Design(f"calibration, {v} / {n} patients", ("calibration",), (0.85,), n, v)
        for v, n in ((60, 200), (150, 600))
    ]
    rows += [
        Design(f"PPV at a prevalence of {use}, counted on {of or 'none'}, {n} patients, {images}",
               ("predictive_values",), (0.93,), n, 100, images, at_use=(use, of))
        for use, of, n, images in (
            (0.05, 240, 60, "one"), (0.05, 240, 600, "one"), (0.05, 240, 200, "rsna"),
            (0.05, None, 200, "one"), (0.05, 60, 200, "one"), (0.2, 60, 200, "one"),
        )
    ]  # fmt: skip
    return rows


def _chance_designs() -> list[Design]:
    """Return designs of one system that guesses, or is better than that."""
    row = partial(Design, claims=("chance",), replicates=100)
    rows = [
        row(f"one system that guesses, {n} patients, {name}", auroc=(0.5,), patients=n,
            images=images, law=law, labels_alike=alike)
        for n, images, name, law, alike in (
            (40, "one", "one image", "binormal", LABELS_ALIKE),
            (200, "one", "one image", "binormal", LABELS_ALIKE),
            (1000, "one", "one image", "binormal", LABELS_ALIKE),
            (40, "1-60", WIDE["1-60"], "skewed", 0.75),
            (80, "1-60", WIDE["1-60"], "skewed", 0.75),
            (80, "rsna", WIDE["rsna"], "skewed", 0.75),
        )
    ]  # fmt: skip
    rows += [row("one system that guesses, 60 patients, 4 positive", auroc=(0.5,), patients=60,
                 n_positive=4)]  # fmt: skip
    rows += [
        row(f"one system of AUROC {auroc:.2f}, {n} patients, {name}", auroc=(auroc,), patients=n,
            images=images, n_positive=n_positive, law=law, labels_alike=alike)
        for auroc, n, images, n_positive, name, law, alike in (
            (0.83, 40, "one", 11, "11 positive", "binormal", LABELS_ALIKE),
            (0.71, 40, "1-60", None, WIDE["1-60"], "skewed", 0.75),
            (0.71, 80, "1-60", None, WIDE["1-60"], "skewed", 0.75),
            (0.71, 80, "1-3", None, WIDE["1-3"], "binormal", LABELS_ALIKE),
            (0.60, 200, "one", None, "one image", "binormal", LABELS_ALIKE),
        )
    ]  # fmt: skip
    return rows


def _group_designs() -> list[Design]:
    """Return designs of groups that do not differ, and of shortcuts."""

    def group(name: str, n: int, share: float, auroc: float = 0.85, images: str = "one",
              by_image: bool = False, shift: float = 0.0) -> Design:  # fmt: skip
        change = partial(in_group, share=share, by_image=by_image, shift=shift)
        return Design(f"groups, {name}", ("groups",), (auroc, auroc), n, 150, images,
                      changes=(change,))  # fmt: skip

    rows = [
        group("5 % of 200 patients", 200, 0.05),
        group("5 % of 200 patients, AUROC 0.95", 200, 0.05, 0.95),
        group("10 % of 200 patients, images as in RSNA", 200, 0.1, images="rsna"),
        group("15 % of the images of 200 patients", 200, 0.15, images="rsna", by_image=True),
        group("14 % of 600 patients", 600, 0.14),
        group("30 % of 600 patients", 600, 0.3),
        group("50 % of 600 patients, images as in RSNA", 600, 0.5, images="rsna"),
        replace(
            group("30 % of 600 patients, their scores higher by 1", 600, 0.3, shift=1.0),
            claims=("groups_by_auroc",),
        ),
    ]
    rows += [
        Design(f"label is noise, {n} images", ("shortcut",), (0.5,), n, replicates=100,
               changes=(with_facts,))
        for n in (142, 564)
    ]  # fmt: skip
    rows.append(
        Design("view alone has AUROC 0.70, 564 images", ("shortcut_interval",), (0.85,), 564,
               positive=0.4, replicates=100, changes=(partial(with_facts, view_predicts=0.7),))
    )  # fmt: skip
    return rows


def _joint_designs() -> list[Design]:
    """Return designs of two systems with their joint system."""
    both = {"both": True}
    rows = [
        Design(f"joint, second is {'a worse copy' if copy else 'noise'}, {v} / {n}, {images}",
               ("joint",), (0.85, 0.85), n, v, images, options=both,
               changes=(partial(second_adds_nothing, copy=copy),))
        for copy in (False, True)
        for v, n, images in ((60, 300, "one"), (200, 600, "one"), (200, 600, "rsna"))
    ]  # fmt: skip
    rows += [
        Design(f"joint, AUROC {a:.2f} and {b:.2f}, {v} / {n}", ("joint_power",), (a, b), n, v,
               options=both)
        for v, n in ((200, 600), (1000, 3000))
        for a, b in ((0.85, 0.85), (0.90, 0.85), (0.93, 0.87))
    ]  # fmt: skip
    rows += [
        Design(f"joint boxes, classifier is {title}, {v} / {n}, {images}", (claim,), (0.94, 0.85),
               n, v, images, detector=DETECTOR, options=both,
               changes=(partial(classifier_second, kind=kind),))
        for kind, title, claim in (
            ("noise", "noise", "joint_boxes"), ("copy", "a worse copy", "joint_boxes"),
            ("own", "good", "joint_boxes_power"),
        )
        for v, n, images in ((60, 300, "one"), (200, 600, "rsna"))
    ]  # fmt: skip
    return rows


def _box_designs() -> list[Design]:
    """Return designs of two equal detectors, and of boxes that say nothing about the image."""
    row = partial(Design, claims=_BOXES, detector=DETECTOR)
    rows = [
        row(f"boxes, {v} / {n} patients, {name}", claims=(*_BOXES, "box_intervals"), patients=n,
            validation=v, images=images)
        for v, n, images, name in (
            (40, 60, "one", "one image"), (40, 60, "rsna", WIDE["rsna"]),
            (150, 200, "one", "one image"), (150, 200, "rsna", WIDE["rsna"]),
        )
    ]  # fmt: skip
    rows += [
        row(f"boxes, overlapping, {v} / {n} patients, {images}", patients=n, validation=v,
            images=images, detector=DOUBLING, claims=(*_BOXES, "box_intervals"))
        for v, n, images in ((60, 100, "one"), (60, 100, "rsna"), (150, 200, "one"))
    ]  # fmt: skip
    rows += [
        row("boxes, X1: 40 / 50 patients, 1 to 3 images", patients=50, validation=40,
            images="1-3", detector=DOUBLING, positive=0.35),
        row("boxes, X2: 60 / 100 patients, 1 to 60 images", patients=100, validation=60,
            images="1-60", detector=DOUBLING),
        row("boxes, X3: 40 / 40 patients, one image", patients=40, validation=40,
            detector=DOUBLING, positive=0.45),
    ]  # fmt: skip
    rows += [
        row("a detector and the same after suppression, 100 / 150 patients", patients=150,
            validation=100, detector=DOUBLING, claims=("box_findings",),
            changes=(suppressed_second,)),
        row("a detector and constant boxes with its scores, 100 / 150 patients", patients=150,
            validation=100, claims=("localises",), changes=(constant_second,)),
    ]  # fmt: skip
    return rows


def core_designs() -> list[Design]:
    """Return every design of the core: all that run `cxr_compare.compare`."""
    groups: Sequence[list[Design]] = (
        _auroc_designs(),
        _chance_designs(),
        _several_designs(),
        _threshold_designs(),
        _box_designs(),
        _group_designs(),
        _joint_designs(),
    )
    return [design for group in groups for design in group]
