"""Guarantees: a threshold whose figure holds for new patients with a stated confidence.

`sensitivity>=0.90@0.90`: over many validation sets drawn as this one was, at least 90 % give a
threshold whose true sensitivity is 0.90 or more, or give none. Patients are the units, since images
of a patient resemble each other.

Every figure is a share of images that must not be below a floor. Of a patient with n counted images
and h good ones, ``h - floor * n`` has a mean of at most 0 where the share lies below the floor.
Where each patient has one image that is tested by the binomial distribution, else by betting, which
needs a bound: a patient with many images counts as at most one image for every 32 patients beyond
the first 50, a rule that looks at no score. A smaller bound finds more, but guarantees a share in
which frequent patients count for less: with a third less it was not that of images by NIH's labels,
where frequent patients have a lower specificity (docs/guarantees.md).

Thresholds are tested from the safe end on until one fails, so many cost no more than one. A figure
that only falls (or only rises) with the threshold is tested at every validation score. The positive
predictive value does neither: a third of the patients proposes the order, the others test.

Source:
    Angelopoulos, Bates, Candes, Jordan and Lei 2025, Annals of Applied Statistics 19:1641 (learn
    then test, fixed sequence); Bates et al. 2021, J ACM 68:43 (monotone risks); Clopper and
    Pearson 1934; betting: `evaluation.statistics.betting`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import scipy  # whose parts load when they are first used

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.betting import mean_p_value

MOST_MARKS = 5
"""So many false marks of an image count in a guarantee of their mean, which needs a bound."""
_FIGURES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "localised_sensitivity": "localised sensitivity",
    "ppv": "positive predictive value",
    "false_marks": "false positives per image",
}
_FALLING = ("sensitivity", "localised_sensitivity")
"""Figures that a higher threshold lowers; of the others all but `ppv` improve with it."""
_PART = re.compile(
    r"(?:(sensitivity|specificity|localised_sensitivity)>=([\d.]+)"
    r"|(ppv)>=([\d.]+),prevalence=([\d.]+)|(false_marks)<=([\d.]+))"
)
_PROPOSING, _SEED = 3, 20240101  # one patient of so many, drawn by this seed
_FEW_PATIENTS, _PATIENTS_AN_IMAGE = 50, 32
_FEWEST_ROWS, _MOST_ROWS = 32, 256  # thresholds that are tested at once
_MOST_PATIENTS = 5_000  # so many are said to be needed at most


class GuaranteedRate(NamedTuple):
    """One figure of a guarantee and its bound."""

    figure: str  # a key of `_FIGURES`
    bound: float  # at least, of false marks at most
    prevalence: float | None = None  # of the positive predictive value

    @property
    def floor(self) -> float:
        """What the share of good images must not be below."""
        return 1 - self.bound / MOST_MARKS if self.figure == "false_marks" else self.bound

    @property
    def name(self) -> str:
        """What the figure is called."""
        return _FIGURES[self.figure]

    @property
    def counted_as(self) -> str:
        """Under which name a decision keeps on how many patients it was guaranteed."""
        return f"patients_{self.figure}"

    @property
    def words(self) -> str:
        """The claim, such as "sensitivity >= 0.9"."""
        sign = "<=" if self.figure == "false_marks" else ">="
        at = "" if self.prevalence is None else f" at prevalence {self.prevalence:g}"
        return f"{self.name} {sign} {self.bound:g}{at}"


@dataclass(frozen=True)
class Guarantee:
    """What a guarantee says: all of its figures, with one confidence for all at once."""

    parts: tuple[GuaranteedRate, ...]  # one or two
    confidence: float  # in (0, 1)

    @property
    def error(self) -> float:
        """How often each part may be wrong."""
        return (1 - self.confidence) / len(self.parts)

    @property
    def sure(self) -> str:
        """The confidence in words."""
        both = " of both at once" if len(self.parts) > 1 else ""
        return f"{100 * self.confidence:g} % confidence{both}"


def read_guarantee(text: str) -> Guarantee | None:
    """Read a guarantee; `None` for another policy: one without ``@``, or of cost.

    Args:
        text: ``sensitivity>=F@C``, ``specificity>=F@C``, ``localised_sensitivity>=F@C``,
            ``ppv>=F,prevalence=P@C`` or ``false_marks<=F@C``, or two of them joined by ``&`` before
            the ``@C``; F, P and the confidence C lie between 0 and 1, and F of false marks between
            0 and 5.

    Raises:
        InputError: What stands before the ``@`` is no figure, a number lies outside its bounds, or
            a figure comes twice.

    Example:
        >>> read_guarantee("sensitivity>=0.90&specificity>=0.70@0.90").parts[1]
        GuaranteedRate(figure='specificity', bound=0.7, prevalence=None)
        >>> read_guarantee("sensitivity>=0.90")
    """
    asked, at, confidence = text.rpartition("@")
    if not at or text.startswith("cost:"):
        return None
    found = [match for part in asked.split("&") if (match := _PART.fullmatch(part))]
    if len(found) <= asked.count("&"):
        raise InputError(
            f"guarantee {text!r}: use sensitivity>=F@C, specificity>=F@C, "
            "localised_sensitivity>=F@C, ppv>=F,prevalence=P@C or false_marks<=F@C with a "
            "confidence C, or two joined by &"
        )
    parts = tuple(
        GuaranteedRate(match[1] or match[3] or match[6], *_numbers(text, match)) for match in found
    )
    if len({part.figure for part in parts}) < len(parts) or len(parts) > 2:
        raise InputError(f"guarantee {text!r}: give one figure, or two different ones joined by &")
    return Guarantee(parts, _between(text, "the confidence after @", confidence))


def _numbers(text: str, match: re.Match[str]) -> tuple[float, float | None]:
    if match[6]:
        return _between(text, "the mean number of false marks", match[7], MOST_MARKS), None
    bound = _between(text, f"the {_FIGURES[match[1] or match[3]]}", match[2] or match[4])
    return bound, _between(text, "the prevalence", match[5]) if match[5] else None


def _between(text: str, name: str, value: str, most: float = 1) -> float:
    """A number above 0 and below `most`."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < most:
        raise InputError(
            f"guarantee {text!r}: {name} must lie between 0 and {most:g}, got {value!r}"
        )
    return number


class Places(NamedTuple):
    """Where a system marks the validation images, and whether rightly; `None` without places."""

    boxed: npt.NDArray[np.bool_]  # whether all lesions of an image are boxed, shape `(N,)`
    # whether the scored point of an image lies on a lesion, shape `(N,)`
    on_lesion: npt.NDArray[np.bool_] | None = None
    # image of each box that hits no lesion, and up to which threshold it is shown
    false: tuple[Integers, Floats] | None = None


def share_p_values(
    good: npt.ArrayLike,
    images: npt.ArrayLike,
    floor: npt.ArrayLike,
    error: float,
    *,
    whole: bool = True,
) -> Floats:
    """P-values of "the share of good images is below `floor`", by patient, shape ``(R,)``.

    Args:
        good: Good images of each patient, shape ``(R, patients)``, a sample a row.
        images: Counted images of each patient, at least 1, shape ``(patients,)``.
        floor: In (0, 1), one for all or shape ``(R,)``.
        error: The p-value that is aimed at.
        whole: Whether an image is either good or not, so that a single one is a binomial trial.

    Example:
        >>> share_p_values([[1, 1, 1, 0], [1, 1, 1, 1]], [1, 1, 1, 1], 0.5, 0.1).tolist()
        [0.3125, 0.0625]
    """
    sums, sizes = np.atleast_2d(np.asarray(good, dtype=np.float64)), np.asarray(images)
    floors, several = np.asarray(floor, dtype=np.float64).reshape(-1, 1), (sizes > 1).any()
    if whole and not several:
        tail = scipy.stats.binom.sf(sums.sum(axis=1) - 1, len(sizes), floors[:, 0])
        return np.asarray(tail, dtype=np.float64)
    most = _most_images(len(sizes)) if several else 1
    counted_as = np.minimum(sizes, most)
    # A mean of `floor * most` where the share is the floor, whatever patients count as.
    values = sums / sizes * counted_as + floors * (most - counted_as)
    return mean_p_value(values, floors[:, 0] * most, upper=most, error=error)


def _most_images(n_patients: int) -> int:
    """As how many images a patient counts at most, where there are so many patients.

    Example:
        >>> [_most_images(n) for n in (30, 150, 1_000, 10_000)]
        [1, 3, 29, 310]
    """
    return max(1, (n_patients - _FEW_PATIENTS) // _PATIENTS_AN_IMAGE)


@dataclass(frozen=True)
class _Share:
    """A figure as a share of good images, which must not be below a floor; patients are tested."""

    counts: npt.NDArray[np.bool_]  # the images that it is a share of, shape `(N,)`
    patients: npt.NDArray[np.str_]  # of all images, shape `(N,)`
    crossed: Floats  # the scores at which it changes
    good: Callable[[Floats], Floats]  # thresholds `(R,)` to how good images are, 0 to 1, `(R, N)`
    falling: bool = False  # whether a higher threshold lowers it
    whole: bool = True  # whether an image is either good or not

    @cached_property
    def _units(self) -> tuple[Integers, Integers, Integers]:
        """Counted images, those of a patient together, where each begins, how many each has."""
        image = np.flatnonzero(self.counts)
        owner, sizes = np.unique(self.patients[image], return_inverse=True, return_counts=True)[1:]
        return image[np.argsort(owner, kind="stable")], np.cumsum(sizes) - sizes, sizes

    @property
    def sizes(self) -> Integers:
        """How many counted images each patient has."""
        return self._units[2]

    def by_patient(self, cuts: Floats) -> Floats:
        """How many good ones of them at thresholds ``(R,)``, ``(R, patients)``."""
        image, first, _ = self._units
        return np.asarray(np.add.reduceat(self.good(cuts)[:, image], first, axis=1))

    def values(self, cuts: Floats) -> Floats:
        """The share at thresholds ``(R,)``."""
        return np.asarray(self.by_patient(cuts).sum(axis=1) / self.sizes.sum())

    def p_values(self, cuts: Floats, floor: npt.ArrayLike, error: float) -> Floats:
        """As `share_p_values`, at thresholds ``(R,)``."""
        return share_p_values(self.by_patient(cuts), self.sizes, floor, error, whole=self.whole)

    def patients_needed(self, cuts: Floats, floor: float, error: float) -> float:
        """As `_patients_needed`, at the first threshold."""
        good = self.by_patient(cuts[:1])[0]
        return _patients_needed(good, self.sizes, floor, error, whole=self.whole)


@dataclass(frozen=True)
class GuaranteeImages:
    """What a guarantee is held on: the validation images of one system, or studies or patients."""

    y_true: npt.NDArray[np.bool_]  # shape `(N,)`
    scores: Floats  # shape `(N,)`
    patients: npt.NDArray[np.str_]  # name of the patient of each, shape `(N,)`
    places: Places | None = None  # `None` for studies and patients
    error_share: float = 1.0  # of a guarantee's error, where the same images chose the score

    def choose(self, guarantee: Guarantee) -> tuple[float | None, str | None]:
        """The threshold that keeps a guarantee, or why there is none.

        Of those that keep it the highest where it holds a sensitivity, else the lowest.
        """
        if len(np.unique(self.scores)) < 2:
            return None, "all validation images have the same score"
        low, high, points = -np.inf, np.inf, None
        for part in guarantee.parts:
            if why := self._lacking(part.figure):
                return None, why
            if part.figure == "ppv":
                points, reason = self._predictive(part, guarantee)
            else:
                end, reason = self._end(part, guarantee)
                if part.figure in _FALLING:
                    high = min(high, end)
                else:
                    low = max(low, end)
            if reason:
                return None, reason
        ends = [end for end in (high, low) if np.isfinite(end)]
        kept = np.array(ends[:1]) if points is None else points
        kept = kept[(kept >= low) & (kept <= high)]
        if not len(kept):
            claims = " and ".join(part.words for part in guarantee.parts)
            return None, f"no threshold was shown to keep {claims} with {guarantee.sure}"
        return float(kept.max() if np.isfinite(high) else kept.min()), None

    def size_of(self, figure: str) -> tuple[int, int]:
        """How many images a figure counts, and how many patients have them."""
        counts = self.scores > -np.inf if figure == "ppv" else self._share(figure).counts
        return int(counts.sum()), len(np.unique(self.patients[counts]))

    def good_images(self, figure: str, threshold: float) -> tuple[Floats, Integers] | None:
        """Good and counted images at a threshold of each patient who has such; `None` without any.

        Of any figure but the positive predictive value, which is no share.
        """
        if self._lacking(figure):
            return None
        share = self._share(figure)
        return share.by_patient(np.array([threshold]))[0], share.sizes

    def _lacking(self, figure: str) -> str:
        """Why a figure is not defined on these images; empty where it is."""
        places = self.places
        if figure in ("false_marks", "localised_sensitivity"):
            if places is None:
                return "a guarantee of places is of images, not of studies or patients"
            if figure == "false_marks" and places.false is None:
                return "the system gives no boxes of its own, so it has no false marks"
            if figure != "false_marks" and places.on_lesion is None:
                return "the system points at no place, so it localises nothing"
        wanted = ("sensitivity", "specificity") if figure == "ppv" else (figure,)
        lacks = {
            "sensitivity": "positive image",
            "specificity": "negative image",
            "localised_sensitivity": "positive image whose lesions are boxed",
            "false_marks": "image whose lesions are all boxed",
        }
        absent = [lacks[each] for each in wanted if not self._share(each).counts.any()]
        return f"validation has no {absent[0]}" if absent else ""

    def _share(self, figure: str) -> _Share:
        """A figure as a share of images; false marks as the share of `MOST_MARKS` not made."""
        truth, scores, places = self.y_true, self.scores, self.places
        if figure == "false_marks" and places is not None and places.false is not None:
            image, score = places.false

            def not_made(cuts: Floats) -> Floats:
                marks = [np.bincount(image[score >= cut], minlength=len(scores)) for cut in cuts]
                return 1 - np.minimum(np.array(marks), MOST_MARKS) / MOST_MARKS

            return _Share(places.boxed, self.patients, score, not_made, whole=False)
        if figure == "specificity":
            return _Share(~truth, self.patients, scores[~truth], _rows(scores, np.less))
        reached, counts = scores, truth
        on_lesion = None if places is None else places.on_lesion
        if figure == "localised_sensitivity" and places is not None and on_lesion is not None:
            reached = np.where(on_lesion, scores, -np.inf)
            counts = truth & places.boxed
        good = _rows(reached, np.greater_equal)
        return _Share(counts, self.patients, reached[counts], good, falling=True)

    def _end(self, part: GuaranteedRate, guarantee: Guarantee) -> tuple[float, str]:
        """The last threshold that keeps a figure, from the safe end on, or why none does."""
        share, error = self._share(part.figure), guarantee.error * self.error_share
        cuts = _between_distinct(np.concatenate([self.scores, share.crossed]))
        cuts = cuts if share.falling else cuts[::-1]
        # Of thresholds between which nothing changes the one nearest the other end.
        place = np.searchsorted(np.sort(share.crossed), cuts)
        cuts = cuts[np.append(place[1:] != place[:-1], True)]
        kept = _kept(cuts, lambda rows: share.p_values(cuts[rows], part.floor, error), error)
        if kept:
            return float(cuts[kept - 1]), ""
        found = float(share.values(cuts[:1])[0])
        shown = (1 - found) * MOST_MARKS if part.figure == "false_marks" else found
        enough = share.patients_needed(cuts, part.floor, error)
        return np.nan, _too_few(part, guarantee, len(share.sizes), shown, enough)

    def _predictive(self, part: GuaranteedRate, guarantee: Guarantee) -> tuple[Floats | None, str]:
        """Thresholds that keep a positive predictive value, falling, or why none does.

        It is kept where, for some s, the sensitivity is at least s and the share of called
        negatives at most s over a ratio. One part of the patients proposes s and the order.
        """
        names = np.unique(self.patients)
        order = np.random.default_rng(_SEED).permutation(len(names))
        proposing = np.isin(self.patients, names[order[: -(-len(names) // _PROPOSING)]])
        one, other = (
            GuaranteeImages(self.y_true[rows], self.scores[rows], self.patients[rows])
            for rows in (proposing, ~proposing)
        )
        if why := one._lacking("ppv") or other._lacking("ppv"):
            return None, f"{why} in a part of its patients"
        prevalence = part.prevalence or 0.0
        error = guarantee.error * self.error_share
        ratio = (1 - prevalence) * part.bound / (prevalence * (1 - part.bound))
        cuts, sensitivity = _proposed(one, ratio)
        found = [other._share(figure) for figure in ("sensitivity", "specificity")]
        floors = sensitivity, np.maximum(1 - sensitivity / ratio, 0.0)
        tests = list(zip(found, floors, strict=True))

        def p_values(rows: slice) -> Floats:
            each = [share.p_values(cuts[rows], floor[rows], error) for share, floor in tests]
            return np.maximum(*each)

        if kept := _kept(cuts, p_values, error):
            return cuts[:kept], ""
        scale = np.max(
            [s.patients_needed(cuts, floor[0], error) / len(s.sizes) for s, floor in tests]
        )
        reached, spared = (float(share.values(cuts[:1])[0]) for share in found)
        false = (1 - prevalence) * (1 - spared)
        shown = prevalence * reached / (prevalence * reached + false) if reached else 0.0
        return None, _too_few(part, guarantee, len(names), shown, scale * len(names))


def _rows(scores: Floats, compare: Callable[..., Any]) -> Callable[[Floats], Floats]:
    """Whether scores lie above or below thresholds ``(R,)``, 0 or 1, shape ``(R, N)``."""
    return lambda cuts: np.asarray(compare(scores, cuts[:, None]), dtype=np.float64)


def _kept(cuts: Floats, p_values: Callable[[slice], Floats], error: float) -> int:
    """How many thresholds succeed in a row before the first that fails."""
    begin, rows = 0, _FEWEST_ROWS
    while begin < len(cuts):
        failed = p_values(slice(begin, begin + rows)) > error
        if failed.any():
            return begin + int(failed.argmax())
        begin, rows = begin + rows, min(4 * rows, _MOST_ROWS)
    return len(cuts)


def _between_distinct(scores: Floats) -> Floats:
    """Midpoints between adjacent distinct finite scores, rising."""
    distinct = np.unique(scores[np.isfinite(scores)])
    return midpoints(distinct[:-1], distinct[1:])


def midpoints(lower: Floats, upper: Floats) -> Floats:
    """Between scores, so that no threshold is one: ``score >= midpoint`` is exactly `upper`."""
    middle = lower + (upper - lower) / 2
    return np.where(middle > lower, middle, upper)


def _proposed(images: GuaranteeImages, ratio: float) -> tuple[Floats, Floats]:
    """Thresholds in the order of tests, and the sensitivity that each is tested for.

    The first is the one that keeps the value by most standard errors, of images; lower ones follow.
    A sensitivity divides the surplus equally between the two tests.
    """
    cuts = _between_distinct(images.scores)
    found, spared = (images._share(figure) for figure in ("sensitivity", "specificity"))
    n_found, n_spared = found.counts.sum(), spared.counts.sum()
    reached = (found.by_patient(cuts).sum(axis=1) + 0.5) / (n_found + 1)
    false = 1 - (spared.by_patient(cuts).sum(axis=1) + 0.5) / (n_spared + 1)
    one = np.sqrt(reached * (1 - reached) / n_found)
    other = np.sqrt(false * (1 - false) / n_spared)
    tested = (reached / one + false / other) / (1 / one + 1 / (ratio * other))
    first = int(np.argmax((reached - tested) / one))
    return cuts[first::-1], np.clip(tested[first::-1], 1e-9, 1 - 1e-9)


def _patients_needed(
    good: Floats, images: Integers, floor: float, error: float, *, whole: bool = True
) -> float:
    """About how many patients like these would show that the share of good images keeps a floor.

    Infinity beyond 5,000, NaN where the share is not above it; other arguments as `share_p_values`.

    Example:
        >>> _patients_needed(np.ones(3), np.ones(3, dtype=int), 0.9, 0.1)
        22.0
    """
    if good.sum() <= floor * images.sum():
        return np.nan

    def shown(count: int) -> bool:
        rows = np.resize(good, count), np.resize(images, count)
        return bool(share_p_values(*rows, floor, error, whole=whole)[0] <= error)

    few, many = 0, 1
    while not shown(many):
        few, many = many, 2 * many
        if many > _MOST_PATIENTS:
            return np.inf
    while many - few > max(1, many // 100):
        middle = (few + many) // 2
        few, many = (few, middle) if shown(middle) else (middle, many)
    return float(many)


def _too_few(
    part: GuaranteedRate, guarantee: Guarantee, patients: int, shown: float, enough: float
) -> str:
    """Why no threshold keeps a figure, and how many patients would do."""
    above = shown < part.bound if part.figure == "false_marks" else shown > part.bound
    # Of a PPV all patients may lie above, and those who test below what the others proposed.
    would = "these patients cannot say how many would do"
    if not above:
        would = "at which no number of patients would do"
    if enough <= _MOST_PATIENTS:
        would = f"at which about {math.ceil(enough):,} patients would do"
    elif enough > _MOST_PATIENTS:
        would = f"at which more than {_MOST_PATIENTS:,} patients would be needed"
    return (
        f"{part.words} was not shown with {guarantee.sure} on {counted(patients, 'patient')}; the "
        f"safest threshold has {shown:.3g} here, {would}"
    )
