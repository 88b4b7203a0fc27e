"""What validation chose for each system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evaluation.boxes.box_rule import BoxRule
from evaluation.boxes.map_boxes import MapBoxRule
from evaluation.compare.intervals import rows_of
from evaluation.compare.metrics_table import EXACT_METHOD
from evaluation.compare.paired_tests import MCNEMAR, OBUCHOWSKI
from evaluation.decisions.reduction import words_of
from evaluation.decisions.thresholds import check_policy
from evaluation.metrics.registry import in_reading_order
from evaluation.metrics.words import listing, number, policy_words
from evaluation.report.charts import policies_of
from evaluation.report.tables import Cell, Row
from evaluation.statistics.bootstrap import BOOTSTRAP, MOST_UNDEFINED

if TYPE_CHECKING:
    from evaluation.compare.comparison import Comparison


_METHODS = {
    "cam": "class activation maps",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "occlusion": "occlusion",
    "gradient": "the input gradient (SmoothGrad)",
}
_NOTHING = {
    "Boxes": "it gives none",
    "Search": "not searched",
    "Referred to a reader": "none",
}


def decision_rows(comparison: Comparison) -> list[Row]:
    """Return what validation chose for each system; no rows where none was tuned."""
    systems = comparison.provenance.get("systems", {})
    decisions = [systems.get(name, {}).get("decision") or {} for name in comparison.systems]
    if not any(decisions):
        return []
    wanted = (
        ("Boxes", _boxes),
        ("Score of an image", _reduction),
        ("Chosen on", _chosen_on),
        ("Settings tried", tried_words),
        ("Rules for boxes", _rules),
        ("Search", _search),
        ("Full scale of maps", _map_scale),
        ("Boxes cut from maps", _map_boxes),
        ("Probability", _probability),
        ("Referred to a reader", _referral),
    )
    rows = [(title, [words(each) for each in decisions]) for title, words in wanted]
    return [
        Row(title, tuple(Cell(words or _NOTHING.get(title, "–")) for words in told))
        for title, told in rows
        if any(told)
    ]


def tried_words(decision: dict[str, Any]) -> str:
    """Say among how many settings validation chose, or that there was nothing to choose.

    Args:
        decision: As provenance holds it.

    Example:
        >>> tried_words({"settings_tried": 12})
        '12'
        >>> tried_words({"settings_tried": 0, "chosen_on": {"n_images": 40}})
        'nothing to choose: its scores are taken as they are'
    """
    tried = decision.get("settings_tried")
    if tried is None:
        return "unknown"
    if tried:
        return str(tried)
    if not (decision.get("chosen_on") or {}).get("n_images"):
        return "nothing chosen: no validation images"
    return "nothing to choose: its scores are taken as they are"


def _boxes(decision: dict[str, Any]) -> str:
    """How boxes were fused and scaled, and from which score the RSNA score calls them."""
    cut = decision.get("box_cut")
    if cut is None and not decision.get("search"):
        return ""
    called = f"; called from score {cut:g} in the RSNA score" if cut is not None else ""
    if decision.get("map_box_level") is not None:
        return "read from its maps" + called
    return BoxRule.from_json(decision.get("box_fusion")).words + called


def _search(decision: dict[str, Any]) -> str:
    """What the search promised on validation, and what is left of it on folds it did not see."""
    search = decision.get("search")
    if not search:
        return ""
    stored = (search.get("boxes_as_stored") or {}).get("folds")
    return (
        f"for {search['objective']}: mean over {search['folds']} folds of patients "
        f"{number(search['chosen']['folds'])} (boxes as stored {number(stored)}; held out "
        f"from its own choice {number(search['held_out'])})"
    )


def _reduction(decision: dict[str, Any]) -> str:
    rule = decision.get("reduction")
    if not rule:
        return "as the system gives it"
    if rule["rule"] == "learned":
        return f"logistic regression learned on validation: {words_of(tuple(rule['weights']))}"
    words = {
        "max": "most confident box",
        "noisy_or": "noisy-or of the boxes",
        "top_k": "mean of the three most confident boxes",
    }.get(rule["rule"], rule["rule"])
    floor = rule.get("min_score")
    return f"{words} scoring at least {floor:g}" if floor else words


def _chosen_on(decision: dict[str, Any]) -> str:
    facts = decision.get("chosen_on") or {}
    if not facts.get("n_images"):
        return "nothing: no validation images"
    return (
        f"{facts['n_images']:,} validation images of {facts['n_patients']:,} patients, "
        f"{facts['n_positive']:,} positive"
    )


def _map_scale(decision: dict[str, Any]) -> str:
    scale = decision.get("map_scale")
    return f"{number(scale[0], 2)} to {number(scale[1], 2)}" if scale else "no maps"


def _map_boxes(decision: dict[str, Any]) -> str:
    level = decision.get("map_box_level")
    return "no maps" if level is None else MapBoxRule(level).words


def _rules(decision: dict[str, Any]) -> str:
    """Among how many rules from boxes to a score folds of patients decided, and how well."""
    record = (decision.get("choices") or {}).get("reduction")
    if not record:
        return ""
    return (
        f"{record['settings_tried']} tried, by AUROC: mean over {record['folds']} folds of "
        f"patients {number(record['mean_over_folds'])} (held out from its own choice "
        f"{number(record['held_out'])})"
    )


def _probability(decision: dict[str, Any]) -> str:
    """How a score becomes a probability, and by which log losses that was chosen."""
    facts = decision.get("calibration")
    if not facts:
        return "none"
    method = facts.get("method", "platt")
    if method == "none":
        words = "the score as it is"
    elif method == "temperature":
        words = f"temperature {number(facts['temperature'], 2)}"
    elif method == "isotonic":
        words = (
            f"isotonic: {facts['levels']} levels, straight lines between; order is kept, scores "
            "on one level are tied"
        )
    else:
        words = f"Platt scaling: slope {number(facts['slope'], 2)}, intercept " + number(
            facts["intercept"], 2
        )
    losses = (decision.get("choices") or {}).get("calibration")
    if not losses:
        return words
    told = ", ".join(f"{name.replace('_', ' ')} {number(loss)}" for name, loss in losses.items())
    return f"{words}; held-out log loss: {told}"


def _referral(decision: dict[str, Any]) -> str:
    """What share was asked for, and by what doubt."""
    chosen = list((decision.get("referral") or {}).values())
    if not chosen:
        return ""
    doubt = {"spread": "spread of its scores", "nearness": "nearness to the threshold"}
    return (
        f"the most doubtful {chosen[0]['share']:.0%} of validation at most".replace("%", " %")
        + f", by {doubt[chosen[0]['by']]}; cuts chosen on validation"
    )


def meanings(comparison: Comparison) -> list[tuple[str, str]]:
    """Return name and meaning of every metric in the report, and of the words around them."""
    rows = rows_of(comparison.metrics).dropna(subset=["estimate"])
    present = set(rows["metric"])
    words = [
        (metric.title, metric.meaning)
        for metric in in_reading_order()
        # Of the single rates the mean says what they are.
        if metric.name in present and metric.place[0] not in ("rates", "none")
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
    if any(way.startswith(BOOTSTRAP) for way in ways):
        told.append(
            "Of all other figures: the middle 95 % of the values when patients (not images) are "
            "drawn again at random, with replacement, and the thresholds are held."
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
    if any(way.startswith(BOOTSTRAP) for way in ways):
        told.append(
            "Of all other figures: both systems are scored on the same redrawn patients, and the "
            "difference is taken each time."
        )
    return " ".join(told) or "The figure of one system less that of the other, on the same images."


def _ways(comparison: Comparison, *, paired: bool = False) -> list[str]:
    """The methods behind the intervals of this report, each once."""
    rows = rows_of(comparison.metrics)
    rows = rows[rows["system"].isin(comparison.names) != paired]
    return [str(way) for way in rows["ci_method"].dropna().unique() if way]


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
    if any(way.startswith(BOOTSTRAP) for way in ways):
        told.append(
            "Other figures and differences: patient-cluster bootstrap, "
            f"{bootstrap.get('replicates', 'an unknown number of')} resamples "
            "(percentile), the same for all systems, thresholds held."
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
    if any(each.maps is not None and len(each.maps) for each in comparison.systems.values()):
        lines.append(
            "Activation maps are drawn on one fixed scale per system, learned on validation "
            "images, and never stretched per image: a dark map means little evidence. They show "
            "where the classifier's evidence lies, at the resolution of its last layer, not the "
            "outline of a lesion; a classifier is never told where a lesion is, so its peak may "
            "lie beside it. Boxes are the connected parts of a map above one level; a box scores "
            "the image's score times the part's peak, where validation chose nothing else."
        )
        lines += [
            f"Maps of {name} are {_METHODS.get(said['maps']['method'], said['maps']['method'])}."
            for name, said in comparison.provenance.get("systems", {}).items()
            if said.get("maps")
        ]
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
