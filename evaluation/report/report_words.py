"""The report's explanations: what the figures mean, how they came about, what they cannot say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluation.compare.exact import EXACT_METHOD
from evaluation.compare.intervals import rows_of
from evaluation.compare.paired_tests import MCNEMAR, OBUCHOWSKI
from evaluation.decisions.thresholds import check_policy
from evaluation.metrics.registry import METRICS, RATE_METRICS, listing, metric_words, policy_words
from evaluation.report.charts import policies_of
from evaluation.report.map_words import map_checks
from evaluation.statistics.bootstrap import BOOTSTRAP, BOOTSTRAP_BCA, MOST_UNDEFINED

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


def meanings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return name and meaning of every metric in the report, and of the words around them."""
    rows = rows_of(comparison.metrics).dropna(subset=["estimate"])
    present = set(rows["metric"]) - set(RATE_METRICS)  # the mean says what they are
    words = [
        (metric_words(metric).title, metric_words(metric).meaning)
        for metric in METRICS
        if metric in present
    ]
    return [
        *words,
        (
            "95 % interval",
            f"What the figure could have been with other patients like these. {_way(comparison)}",
        ),
        (
            "Paired difference",
            f"{_paired_way(comparison)} Two intervals may overlap and the difference still be "
            "clear; so read the difference's own interval. Where it contains 0, the systems were "
            "not shown to differ.",
        ),
        *(
            (f"Threshold for {policy_words(each)}", _policy_meaning(each))
            for each in policies_of(comparison)
        ),
    ]


def _way(comparison: Comparison) -> str:
    """How intervals are computed, as far as this report has them."""
    ways = _ways(comparison)
    told = []
    if any(way.startswith(OBUCHOWSKI) for way in ways):
        told.append(
            "Of AUROC: Obuchowski (1997), from the variance summed by patient; of one system on "
            "the logit scale, so that it stays inside 0 and 1."
        )
    if any(way.startswith((BOOTSTRAP, BOOTSTRAP_BCA)) for way in ways):
        told.append(
            "Of all other figures: the middle 95 % of the values when patients (not images) are "
            "drawn again at random, with replacement, and the thresholds are held."
            + (" BCa moves its ends for bias and skew." if _by_bca(ways) else "")
        )
    if EXACT_METHOD in ways:
        told.append(
            "Of a share that no redrawing moves (0 or 1): Clopper and Pearson's exact one, with "
            "patients as trials."
        )
    return " ".join(told) or "This report has none."


def _paired_way(comparison: Comparison) -> str:
    ways = _ways(comparison, paired=True)
    told = []
    if any(way.startswith(OBUCHOWSKI) for way in ways):
        told.append(
            "Of AUROC: Obuchowski's variance of the difference, in which what both systems share "
            "on a patient counts; not on the logit scale."
        )
    if any(way.startswith((BOOTSTRAP, BOOTSTRAP_BCA)) for way in ways):
        told.append(
            "Of all other figures: both systems are scored on the same redrawn patients, and the "
            "difference is taken each time."
        )
    return " ".join(told) or "The figure of one system less that of the other, on the same images."


def _ways(comparison: Comparison, *, paired: bool = False) -> list[str]:
    """The methods behind the intervals of this report, each once."""
    rows = rows_of(comparison.metrics)
    rows = rows[rows["system"].isin(comparison.systems) != paired]
    return [str(way) for way in rows["ci_method"].dropna().unique() if way]


def _by_bca(ways: list[str]) -> bool:
    return any(way.startswith(BOOTSTRAP_BCA) for way in ways)


_HIGHEST = "of several equally good ones the highest"


def _policy_meaning(policy: str) -> str:
    """How a policy's threshold is chosen, with what decides between equals."""
    asked = check_policy(policy)
    if asked.kind == "threshold":
        return "Declared by the user and used as it is: no image chose it."
    if asked.kind == "max_f1":
        return f"The threshold with the highest F1 on the validation images; {_HIGHEST}."
    if asked.kind == "youden":
        return (
            "The threshold with the highest Youden's J = sensitivity + specificity − 1 on the "
            f"validation images; {_HIGHEST}."
        )
    if asked.kind == "cost":
        place = "that of validation" if asked.prevalence is None else f"{asked.prevalence:g}"
        return (
            "The threshold of least expected cost on the validation images: a missed positive "
            f"costs {asked.value:g} times what a false alarm costs, at a prevalence of {place}; "
            f"{_HIGHEST}. None where calling all images alike is cheaper."
        )
    if asked.kind == "sensitivity":
        return (
            f"The highest threshold that reaches a sensitivity of {asked.value:g} on the "
            "validation images; on test images it may come out lower."
        )
    return (
        f"The lowest threshold that reaches a specificity of {asked.value:g} on the validation "
        "images, so that systems are compared at about equal false alarms; on test images it may "
        "come out otherwise."
    )


def uncertainty_words(comparison: Comparison) -> str:
    """Say how this report estimates uncertainty and tests differences, and nothing that it lacks.

    Args:
        comparison: What ``cxr compare`` found.
    """
    ways = [*_ways(comparison), *_ways(comparison, paired=True)]
    bootstrap, tests = comparison.provenance.get("bootstrap") or {}, comparison.tests
    methods = set(tests["method"]) if len(tests) else set()
    told = []
    if any(way.startswith(OBUCHOWSKI) for way in ways):
        told.append(
            "AUROC: intervals and paired differences by Obuchowski (1997), clustered by patient."
        )
    if any(way.startswith((BOOTSTRAP, BOOTSTRAP_BCA)) for way in ways):
        told.append(
            "Other figures and differences: patient-cluster bootstrap, "
            f"{bootstrap.get('replicates', 'an unknown number of')} resamples "
            f"({'BCa' if _by_bca(ways) else 'percentile'}), the same for all systems, thresholds "
            "held."
        )
    if EXACT_METHOD in ways:
        told.append("Shares of 0 or 1: exact Clopper-Pearson intervals, with patients as trials.")
    if MCNEMAR in methods:
        told.append(
            "Paired decisions: Obuchowski's McNemar test (1998), clustered by patient, on "
            "accuracy, sensitivity and specificity."
        )
    if methods and len(comparison.systems) > 2:
        told.append(
            "p-values are adjusted by Holm, per figure: over the contrasts with the first system, "
            "and for the best of several over all pairs."
        )
    return " ".join(told) or "No intervals were computed."


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
    ways = list(dict.fromkeys([*_ways(comparison), *_ways(comparison, paired=True)]))
    single = [name for name, runs in comparison.seeds.items() if runs == 1]
    lines = [
        "All systems are scored on exactly the same test images; an image without boxes scores "
        "0 and stays in every table.",
        "An image is called positive where its score is at or above the threshold (≥). "
        "Thresholds were chosen on validation images only, as midpoints between observed scores, "
        "and so was all else that stands under “What validation chose”.",
        f"Intervals: {', '.join(ways)}; the same resamples for all systems, thresholds "
        "held. Resamples in which a figure is undefined are left out; with more than "
        f"{100 * MOST_UNDEFINED:.0f} % of them, and where no resample moves a figure, there is no "
        "interval."
        if ways
        else "No intervals were computed.",
        "A figure that cannot be computed is left empty with its reason; it is never put at 0.",
    ]
    if _by_bca(ways):
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
