"""The report's explanations: what the figures mean, how they came about, what they cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.bootstrap import BOOTSTRAP_BCA, MOST_UNDEFINED
from evaluation.charts import policies_of
from evaluation.intervals import rows_of
from evaluation.map_words import map_checks
from evaluation.wording import METRICS, listing, metric_words, policy_words

if TYPE_CHECKING:
    from evaluation.compare import Comparison


def meanings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return name and meaning of every metric in the report, and of the words around them."""
    present = set(rows_of(comparison.metrics)["metric"])
    by_bca = comparison.protocol.interval == "bca"
    words = [
        (metric_words(metric).title, metric_words(metric).meaning)
        for metric in METRICS
        if metric in present
    ]
    return [
        *words,
        (
            "95 % interval",
            "What the figure could have been with other patients like these: the middle 95 % of "
            "its values when patients (not images) are drawn again at random, with replacement, "
            "and the thresholds are held."
            + (" BCa moves its ends for bias and skew." if by_bca else ""),
        ),
        (
            "Paired difference",
            "Both systems are scored on the same redrawn patients, and the difference is taken "
            "each time. Two intervals may overlap and the difference still be clear; so read the "
            "difference's own interval. Where it contains 0, the systems were not shown to differ.",
        ),
        *(
            (f"Threshold for {policy_words(each)}", _policy_meaning(each))
            for each in policies_of(comparison)
        ),
    ]


def _moved(comparison: Comparison) -> str:
    return (
        "; BCa moves its ends for bias and skew." if comparison.protocol.interval == "bca" else "."
    )


def _policy_meaning(policy: str) -> str:
    if policy == "max_f1":
        return "The threshold with the highest F1 on the validation images."
    if policy.startswith("sensitivity>="):
        floor = policy.split(">=")[1]
        return (
            f"The highest threshold that reaches a sensitivity of {floor} on the validation "
            "images; on test images it may come out lower."
        )
    if policy.startswith("specificity>="):
        floor = policy.split(">=")[1]
        return (
            f"The lowest threshold that reaches a specificity of {floor} on the validation "
            "images, so that systems are compared at about equal false alarms; on test images it "
            "may come out otherwise."
        )
    return "Chosen on the validation images, or declared by the user."


TESTS_WORDS = (
    "AUROC has Obuchowski's intervals (1997: the variance is summed by patient; of one system on "
    "the logit scale). Paired decisions are tested by Obuchowski's clustered McNemar test (1998), "
    "on accuracy, sensitivity and specificity. DeLong's intervals and the exact McNemar test, both "
    "of images taken as independent, and the bootstrap's stand beside in tests.csv. p-values of "
    "contrasts with the first system are adjusted by Holm, per metric. The smallest detectable "
    "difference is (1.96 + 0.84) times the standard error of the paired difference, by patient. "
    "Subgroups have intervals and no p-values."
)


def _bca_words(comparison: Comparison) -> str:
    told = comparison.provenance.get("bootstrap") or {}
    return (
        "BCa (Efron 1987) moves the ends of the bootstrap's interval: for bias, by the share of "
        "resamples below the figure, those equal to it counted half; for skew, by the jackknife "
        f"that leaves out {told.get('left_out', 'patients')} in turn. Where it is undefined, as "
        "where every resample lies on one side of the figure, the percentile interval stands, and "
        "the figure's note and ci_method in metrics.csv say so."
    )


def methods(comparison: Comparison) -> list[str]:
    """Return methods and limits, one point each."""
    rows = rows_of(comparison.metrics)
    ways = [way for way in rows["ci_method"].dropna().unique() if way]
    single = [name for name, runs in comparison.seeds.items() if runs == 1]
    lines = [
        "All systems are scored on exactly the same test images; an image without boxes scores "
        "0 and stays in every table.",
        "An image is called positive where its score is at or above the threshold (≥). "
        "Thresholds were chosen on validation images only, as midpoints between observed scores, "
        "and so was all else that stands under “What validation chose”.",
        f"Intervals: {', '.join(map(str, ways))}; the same resamples for all systems, thresholds "
        "held. Resamples in which a figure is undefined are left out; with more than "
        f"{100 * MOST_UNDEFINED:.0f} % of them, and where no resample moves a figure, there is no "
        "interval."
        if ways
        else "No intervals were computed.",
        *(
            [_bca_words(comparison)]
            if any(str(way).startswith(BOOTSTRAP_BCA) for way in ways)
            else []
        ),
        "A figure that cannot be computed is left empty with its reason; it is never put at 0.",
    ]
    if any(str(way).startswith(BOOTSTRAP_BCA) for way in ways):
        lines.append(_bca_words(comparison))
    if len(comparison.tests):
        lines.append(TESTS_WORDS)
    lines += [
        f"{name}: figures are means over {runs} training seeds. Intervals resample patients and "
        "seeds: a replicate is the mean over seeds on the drawn patients, plus sqrt(S / (S - 1)) "
        "times what the mean over S drawn seeds differs from it; of AUROC, the variance between "
        "seeds / S is added, with Satterthwaite's degrees of freedom."
        for name, runs in comparison.seeds.items()
        if runs > 1
    ]
    if len(comparison.systems) > 1:
        lines.append(
            f"The answer rests on the {comparison.protocol.title}; all other differences "
            "are there to explain it. The intervals are not widened for the number of "
            "comparisons, so a single interval just beside 0 is weak evidence."
        )
    if any(table is not None and len(table) for table in comparison.maps.values()):
        lines.append(
            "Activation maps are drawn on one fixed scale per system, learned on validation "
            "images, and never stretched per image: a dark map means little evidence. They show "
            "where the classifier's evidence lies, at the resolution of its last layer, not the "
            "outline of a lesion; a classifier is never told where a lesion is, so its peak may "
            "lie beside it. Boxes are the connected parts of a map above one level; a box scores "
            "the image's score times the part's peak, where validation chose nothing else."
        )
        lines += map_checks(comparison.provenance.get("systems", {}))
    if single:
        lines.append(
            f"One training run (seed) of {listing(single)}: the intervals cover the choice of "
            "patients, not the luck of training."
        )
    lines += [
        "Gallery cases are chosen by rule (see each heading), not by hand; failures are shown "
        "more often than they occur.",
        "The figures hold for this data set, its readers and its share of positives. Precision "
        "and average precision change with the share of positives. Use elsewhere needs a test "
        "there.",
        "For research. Not a medical device.",
    ]
    return lines
