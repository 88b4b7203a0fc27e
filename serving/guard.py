"""The out-of-distribution check of a run, which finds images that are no frontal chest X-rays.

For a DICOM file the header is checked by the rules of ``cxr prepare --format dicom``. The pixels
are checked by a logistic model on image statistics. It learns from the training images of the run,
and from images that are derived from them or drawn (`serving.guard_images`). It needs no second
network and no other data. This module imports no torch.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import cv2
import numpy as np
from pydantic import Field, Strict, model_validator

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.records import Record, Whole
from cxr_compare.data_prep.images.image import DecodedImage, read_image
from cxr_compare.data_prep.images.radiograph_check import SMALLEST_SIDE, why_no_radiograph
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.serving.guard_images import (
    MEASURES,
    STATISTICS_VERSION,
    ImageStatistics,
    draw,
    spoil,
    vary,
    visible_part,
)
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.data_prep.store.pixel_store import PixelSource

WarningKind = Literal["other_image", "negative", "turned", "age", "synthetic_run", "damaged"]
GUARD_NAME = "guard.json"
"""Name of the file of the out-of-distribution check (guard) in the folder of a training."""
MIN_IMAGES = 50
MIN_PATIENTS = 5
"""Smallest numbers of training images, and of their patients, for which a check is learned."""
_MOST_IMAGES = 600
_DRAWN = 600
_FOLDS = MIN_PATIENTS
_SEED = 17
_LAYOUT_PARTS = 40
_EDGE_PARTS = 30
_IMAGES_A_PART = 8
_PENALTY = 50.0
_FALSE_ALARMS = 0.004
_LOWEST_LIMIT = 1.0
_HIGHEST_LIMIT = 1.5
_LARGEST_VALUE = 8.0
_LARGEST_SQUARE = 16.0
_TINY = 1e-6
_COLOURED = 16.0  # lowest `DecodedImage.colour` of a colour image
_LEAST_SPREAD = 1.0  # lowest standard deviation of grey values (0 to 255) of an image with contrast
_AGES = (2.0, 12.0, 18.0)  # years at which an age group begins: ICH E11
_AGE_GROUPS = ("under 2", "2 to 11", "12 to 17", "18 or more")
_RARE = 0.01  # share of training images below which an age group counts as not learned
_ORIENTATIONS = {
    "RF": "mirrored, with the patient's right at the right",
    "RH": "upside down",
    "LH": "upside down and mirrored",
    **dict.fromkeys(("FL", "FR", "HL", "HR"), "lying on its side"),
}
_ON_ITS_SIDE = "turned by 90 degrees it would: it seems to lie on its side"
_TURNS: tuple[tuple[WarningKind, str, Callable[[np.ndarray], np.ndarray]], ...] = (
    ("negative", "as a negative it would: black and white seem to be swapped", lambda p: 255 - p),
    ("turned", "turned by 180 degrees it would: it seems to be upside down", np.flip),
    ("turned", _ON_ITS_SIDE, np.rot90),
    ("turned", _ON_ITS_SIDE, lambda pixels: np.rot90(pixels, 3)),
)


class Warned(str):
    """Text of a warning about an image, a sentence without a full stop, with its kind.

    The kind is ``other_image`` (of another kind than the training images), ``negative``,
    ``turned``, ``age``, ``synthetic_run`` (the system learned from synthetic images) or
    ``damaged``.
    """

    kind: WarningKind

    def __new__(cls, message: str, kind: WarningKind = "other_image") -> Self:
        """Make a warning."""
        warned = super().__new__(cls, message)
        warned.kind = kind
        return warned


@dataclass(frozen=True)
class GuardFit:
    """Fitted parameters of the logistic model that recognises images without a chest, float32.

    An image is described by D = K + E + 14 numbers: K principal components of its layout (ranks of
    its grey values), E principal components of its edge statistics, for each of these two the part
    that the components leave out, and 12 overall statistics.

    Attributes:
        layout_mean: Mean layout of the training images.
        layout_parts: Principal components of the layout, one in each of the K rows; the columns are
            those of `layout_mean`.
        edges_mean: Mean of the edge statistics.
        edges_parts: Principal components of the edge statistics, one in each of the E rows.
        centre: Mean of each number over the training images, (D,).
        spread: Standard deviation of each number, (D,).
        precision: Inverse of the covariance of the numbers, (D, D), for the Mahalanobis distance.
        weights: Weights of the numbers, of their squares, of the distance, and the constant, (2 D +
            2,).
    """

    layout_mean: np.ndarray
    layout_parts: np.ndarray
    edges_mean: np.ndarray
    edges_parts: np.ndarray
    centre: np.ndarray
    spread: np.ndarray
    precision: np.ndarray
    weights: np.ndarray

    def scores(self, measured: ImageStatistics) -> np.ndarray:
        """Return the log odds that each image shows no chest, given equally frequent classes.

        The shape is ``(N,)``.
        """
        return _terms(self, measured) @ self.weights


class PackedArray(Record):
    """A float32 array as text in base64, with its shape."""

    shape: list[Annotated[Whole, Field(ge=0)]]
    float32: str


class Guard(Record, kind="guard"):
    """A fitted check whether an image is a frontal chest X-ray (out-of-distribution check).

    It belongs to one run (training), which stores it as ``guard.json``; `add_guard` makes it.

    Attributes:
        size: Side of the square images that the check was learned from, px.
        limit: Log odds (from `score`) from which an image counts as no frontal chest X-ray.
        images: Number of training images that the check was learned from.
        false_alarms: Share of the training images that reach the limit, in [0, 1]. Each image is
            scored by a fit without its patient.
        ages: Number of training images of patients under 2, of 2 to 11, of 12 to 17, and of 18 or
            more years, in this order; None if fewer than 50 ages are known.
        statistics: Version number of the image statistics that the check computes.
        arrays: Fitted parameters by name, see `GuardFit`.
    """

    size: Whole
    limit: float
    images: Whole
    false_alarms: float
    ages: Annotated[tuple[Whole, ...], Strict(False), Field(min_length=4, max_length=4)] | None = (
        None
    )
    statistics: Whole
    arrays: dict[str, PackedArray] = Field(repr=False)

    @model_validator(mode="after")
    def _require_fit(self) -> Self:
        again = "delete it, and the same cxr train command makes it again"
        if self.statistics != STATISTICS_VERSION:
            raise ValueError(f"was made by another version of cxr; {again}")
        try:
            _require_shapes(self.fit)
        except (KeyError, ValueError) as error:
            raise ValueError(f"is damaged ({error}); {again}") from None
        return self

    @cached_property
    def fit(self) -> GuardFit:
        """Fitted parameters of the logistic model."""
        return GuardFit(**{f.name: _unpack(self.arrays[f.name]) for f in fields(GuardFit)})

    def score(self, pixels: np.ndarray) -> float:
        """Return the log odds that an image, uint8 ``(H, W)`` of any size, is no chest X-ray."""
        return float(
            self.fit.scores(ImageStatistics.from_images([visible_part(pixels, self.size)]))[0]
        )

    def warnings(
        self,
        image: DecodedImage | np.ndarray,
        square: np.ndarray | None = None,
        system: str = "this run",
        score: float | None = None,
    ) -> tuple[Warned, ...]:
        """Return the reasons why an image may not suit the system.

        Either the image does not look like a frontal chest X-ray, or the patient's age is rare
        among the training images.

        A decoded `image` also gives the age of the patient; pixels are uint8 ``(H, W)``. `square`
        is the image in a square with black borders, uint8 ``(size, size)``, and `score` the result
        of the method `score`; None computes either. `system` names the system in the sentences.
        """
        decoded = image if isinstance(image, DecodedImage) else None
        pixels = image.pixels if isinstance(image, DecodedImage) else image
        if square is not None and square.shape == (self.size, self.size):
            pixels = square
        age = None if decoded is None else decoded.header.get("age_years")
        warnings = self._age_warnings(age, system)
        if (self.score(pixels) if score is None else score) >= self.limit:
            message = f"does not look like the frontal chest X-rays that trained {system}"
            turned = (
                Warned(f"{message} ({seems})", kind)
                for kind, seems, turn in _TURNS
                if self.score(turn(pixels)) < self.limit
            )
            warnings.append(next(turned, Warned(message)))
        return tuple(warnings)

    def _age_warnings(self, age: float | None, system: str) -> list[Warned]:
        if age is None or self.ages is None:
            return []
        group = int(np.searchsorted(_AGES, age, side="right"))
        total = sum(self.ages)
        if self.ages[group] >= _RARE * total:
            return []
        message = (
            f"by its header a patient of {_AGE_GROUPS[group]} years; of the {total:,} images that "
            f"trained {system}, {self.ages[group]:,} are of that age"
        )
        return [Warned(message, "age")]


def file_warnings(path: Path | str | None, image: DecodedImage | None = None) -> tuple[Warned, ...]:
    """Return the warnings about an image file that hold for any system.

    They concern the header, the colour, the size and the contrast. A DICOM file that ``cxr prepare
    --format dicom`` would leave out gets a warning with the same reason. So does a file whose
    PatientOrientation says that the image is turned or mirrored. `path` is None for an image that
    was given as an array. Without `image` the file is decoded (InputError if it cannot be), except
    for a DICOM file, of which then only the header is checked.
    """
    reason = None
    is_dicom = False
    if path is not None:
        reason, is_dicom = why_no_radiograph(Path(path))
    warnings = [f"by its DICOM header no frontal chest X-ray: {reason}"] if reason else []
    if image is None and (is_dicom or path is None):
        return tuple(map(Warned, warnings))
    image = image or read_image(str(path))
    height, width = image.pixels.shape
    # For a DICOM file the check of the header reports this.
    if not is_dicom and min(height, width) < SMALLEST_SIDE:
        warnings.append(f"{width} x {height} px is too small for an X-ray")
    if cv2.meanStdDev(image.pixels)[1].item() < _LEAST_SPREAD:
        warnings.append("without contrast: the whole image has one grey value, or nearly so")
    if image.colour >= _COLOURED:
        warnings.append("a colour image; X-rays are grey")
    damaged = (Warned(doubt, "damaged") for doubt in image.doubts)
    return (*map(Warned, warnings), *orientation_warnings(image), *damaged)


def orientation_warnings(image: DecodedImage) -> list[Warned]:
    """Return a warning if the DICOM header says that the image is mirrored or turned, else none."""
    stated = str(image.record["orientation"] or "")
    row, _, column = stated.partition("\\")
    turned = _ORIENTATIONS.get(row[:1] + column[:1])
    message = f"by its DICOM header {turned} (PatientOrientation {stated})"
    return [Warned(message, "turned")] if turned else []


def image_notes(image: DecodedImage) -> tuple[str, ...]:
    """Return facts about an image that its reader should know, such as that it was inverted.

    A note is no reason to distrust a prediction.
    """
    notes: tuple[str, ...] = ()
    if image.record["inverted"]:
        kind = " (MONOCHROME1)" if image.record["photometric"] == "MONOCHROME1" else ""
        notes = (f"stored as a negative{kind} and inverted, so that air is dark",)
    if image.header.get("synthetic"):  # a text in the file, which anybody can write there
        notes += ("this file says of itself that it is synthetic",)
    return notes


def add_guard(run: Path, dataset: DataSet, split: str, size: int, progress: Progress) -> None:
    """Learn the out-of-distribution check of a training from its images, and store it in the run.

    The check recognises images that are no frontal chest X-ray. An existing check is kept. With
    fewer than 50 training images or 5 patients, no check is stored and the user gets a note.

    Raises InputError if the stored check is damaged, or another version of cxr made it.
    """
    path = run / GUARD_NAME
    if path.is_file():
        Guard.read(path)  # refuses a damaged one
        return
    images = dataset.images.set_index("image_id").loc[dataset.image_ids("train", split)]
    store = dataset.make_store(size, progress)
    guard = fit_guard(store, images["patient_id"], images.get("age_years"))
    if guard is None:
        progress.say(
            f"No guard against other images: learning it takes {MIN_IMAGES} training images of "
            f"{MIN_PATIENTS} patients"
        )
        return
    guard.write(path)
    progress.say(f"Guard: {guard.images} training images tell what is no frontal chest X-ray")


def how_to_add_guard(run: Path) -> str:
    """Return how a run without an out-of-distribution check gets one, or why it cannot have one.

    The text is the end of a sentence; `run` is the folder of a training or an export without
    ``guard.json``.
    """
    record = run / "run.json"
    n_train = RunInfo.read(record).n_train if record.is_file() else None
    needed = f"{MIN_IMAGES} training images of {MIN_PATIENTS} patients"
    if n_train is None:  # an export does not say how many images its run learned from
        return f"the same cxr train command adds it to the run if that has {needed}"
    if n_train < MIN_IMAGES:
        return f"learning it takes {needed}, and the run has {counted(n_train, 'training image')}"
    return "the same cxr train command adds it"


def fit_guard(
    source: PixelSource, patients: pd.Series, ages: pd.Series | None = None
) -> Guard | None:
    """Learn an out-of-distribution check from training images.

    The check recognises images that are no frontal chest X-ray. At most 600 images are used, and
    the same images always give the same check. The limit is the score that 0.4 % of the images
    exceed when their patients are left out of the fit. It is at least 1.0, so that X-rays of other
    hospitals pass, and at most 1.5, because training sets contain some odd images.

    `source` gives the square image of an image id. `patients` and `ages` (years, NaN if unknown)
    are indexed by image id. The result is None if there are too few images or patients.
    """
    if len(patients) < MIN_IMAGES or patients.nunique() < MIN_PATIENTS:
        return None
    rng = np.random.default_rng(_SEED)
    counted = None if ages is None else count_ages(ages.loc[patients.index].to_numpy(np.float64))
    patients = patients.sort_index()
    if len(patients) > _MOST_IMAGES:
        patients = patients.iloc[np.sort(rng.choice(len(patients), _MOST_IMAGES, replace=False))]
    images = [visible_part(source.image(image_id), source.size) for image_id in patients.index]
    n = len(images)
    real = ImageStatistics.from_images(images)
    varied = ImageStatistics.from_images(vary(image, rng) for image in images)
    made_of = np.tile(np.arange(n), 2)
    partner = np.concatenate([rng.permutation(n), rng.permutation(n)])
    pairs = zip(made_of, partner, strict=True)
    made = ImageStatistics.from_images(spoil(images[one], images[two], rng) for one, two in pairs)
    drawn = ImageStatistics.from_images(draw(number, rng) for number in range(_DRAWN))

    import pandas as pd

    codes = pd.factorize(patients)[0]
    fold = rng.permutation(codes.max() + 1)[codes] % _FOLDS
    left_out = np.empty(n)
    for k in range(_FOLDS):
        inside = fold != k
        outside = (fold[made_of] != k) & (fold[partner] != k)
        fit = _fit(real[inside], varied[inside], made[outside], drawn)
        left_out[~inside] = fit.scores(real[~inside])
    limit = np.clip(np.quantile(left_out, 1 - _FALSE_ALARMS), _LOWEST_LIMIT, _HIGHEST_LIMIT)
    false_alarms = float((left_out >= limit).mean())
    fit = _fit(real, varied, made, drawn)
    return Guard(
        size=source.size,
        limit=float(limit),
        images=n,
        false_alarms=false_alarms,
        ages=counted,
        statistics=STATISTICS_VERSION,
        arrays=pack_arrays(fit),
    )


def count_ages(years: np.ndarray) -> tuple[int, ...] | None:
    """Count images of patients under 2, of 2 to 11, of 12 to 17, and of 18 or more years.

    Unknown ages are NaN. The result is None if fewer than 50 ages are known.

    Example:
        >>> count_ages(np.repeat([1.0, 60.0], [10, 90]))
        (10, 0, 0, 90)
    """
    years = years[np.isfinite(years)]
    if len(years) < MIN_IMAGES:
        return None
    groups = np.searchsorted(_AGES, years, side="right")
    return tuple(np.bincount(groups, minlength=len(_AGE_GROUPS)).tolist())


def _fit(
    real: ImageStatistics, varied: ImageStatistics, made: ImageStatistics, drawn: ImageStatistics
) -> GuardFit:
    inside = real + varied
    outside = made + drawn
    most = len(real.layout) // _IMAGES_A_PART
    layout_mean, layout_parts = _principal_parts(inside.layout, min(_LAYOUT_PARTS, most))
    edges_mean, edges_parts = _principal_parts(inside.edges, min(_EDGE_PARTS, most))
    none = np.zeros(0, np.float32)
    fit = GuardFit(layout_mean, layout_parts, edges_mean, edges_parts, none, none, none, none)
    numbers = _numbers(fit, inside)
    fit = replace(fit, centre=_float32(numbers.mean(0)), spread=_float32(numbers.std(0) + 1e-3))
    covariance = np.cov(_standardised(fit, inside).T)
    shrunk = min(0.5, 0.3 * len(covariance) / len(real.layout))
    covariance = (1 - shrunk) * covariance + shrunk * np.eye(len(covariance))
    fit = replace(fit, precision=_float32(np.linalg.inv(covariance)))
    terms = np.vstack([_terms(fit, inside), _terms(fit, outside)])
    is_outside = np.repeat([0.0, 1.0], [len(inside.layout), len(outside.layout)])
    return replace(fit, weights=_float32(_logistic(terms.astype(np.float64), is_outside)))


def _float32(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def _principal_parts(values: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    mean = values.mean(0)
    centred = (values - mean).astype(np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean, np.ascontiguousarray(vectors[:, ::-1][:, :most].T, np.float32)


def _numbers(fit: GuardFit, measured: ImageStatistics) -> np.ndarray:
    """Return the numbers of an image: principal components, residual, and overall statistics."""
    columns = []
    for values, mean, parts in (
        (measured.layout, fit.layout_mean, fit.layout_parts),
        (measured.edges, fit.edges_mean, fit.edges_parts),
    ):
        centred = values - mean
        places = centred @ parts.T
        rest = ((centred - places @ parts) ** 2).sum(1, keepdims=True)
        columns += [places, np.log(rest + _TINY)]
    return np.hstack([*columns, measured.overall])


def _standardised(fit: GuardFit, measured: ImageStatistics) -> np.ndarray:
    numbers: np.ndarray = (_numbers(fit, measured) - fit.centre) / fit.spread
    return np.clip(numbers, -_LARGEST_VALUE, _LARGEST_VALUE)


def _terms(fit: GuardFit, measured: ImageStatistics) -> np.ndarray:
    """Return numbers, their squares, the Mahalanobis distance and 1, shape ``(N, 2 D + 2)``."""
    numbers = _standardised(fit, measured)
    distance = ((numbers @ fit.precision) * numbers).sum(1, keepdims=True) / numbers.shape[1]
    squares = np.minimum(numbers**2, _LARGEST_SQUARE) / 3
    return np.hstack([numbers, squares, np.log(distance + _TINY), np.ones_like(distance)])


def _logistic(terms: np.ndarray, is_outside: np.ndarray) -> np.ndarray:
    """Fit ridge logistic regression by Newton's method; both classes have the same weight."""
    weight = np.where(is_outside == 1, 0.5 / is_outside.mean(), 0.5 / (1 - is_outside.mean()))
    penalty = np.full(terms.shape[1], _PENALTY)
    penalty[-1] = _TINY  # the constant is not penalised
    beta = np.zeros(terms.shape[1])
    for _ in range(30):
        share = 1 / (1 + np.exp(-np.clip(terms @ beta, -30, 30)))
        slope = terms.T @ (weight * (share - is_outside)) + penalty * beta
        bend = terms.T @ (terms * (weight * share * (1 - share))[:, None]) + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        beta -= step * min(1.0, 5.0 / np.abs(step).max())
        if np.abs(step).max() < 1e-4:
            break
    return beta


def _require_shapes(fit: GuardFit) -> None:
    k = len(fit.layout_parts)
    e = len(fit.edges_parts)
    layout, edges, overall = MEASURES
    d = k + e + overall + 2
    expected = {
        "layout_mean": (layout,),
        "layout_parts": (k, layout),
        "edges_mean": (edges,),
        "edges_parts": (e, edges),
        "centre": (d,),
        "spread": (d,),
        "precision": (d, d),
        "weights": (2 * d + 2,),
    }
    for name, shape in expected.items():
        array: np.ndarray = getattr(fit, name)
        if array.shape != shape or not np.isfinite(array).all():
            raise ValueError(f"{name} has shape {array.shape}, expected finite numbers {shape}")


def pack_arrays(fit: GuardFit) -> dict[str, PackedArray]:
    """Return the parameters of a fit as a `Guard` stores them."""
    packed = {}
    for name, values in vars(fit).items():
        encoded = base64.b64encode(values.astype("<f4").tobytes()).decode()
        packed[name] = PackedArray(shape=list(values.shape), float32=encoded)
    return packed


def _unpack(packed: PackedArray) -> np.ndarray:
    values = np.frombuffer(base64.b64decode(packed.float32, validate=True), "<f4")
    return values.reshape(packed.shape)
