"""Intervals, differences and tests of a report in words, from `IntervalFacts`."""

from __future__ import annotations

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.report.citations import Cite
from cxr_compare.evaluation.report.interval_facts import IntervalFacts
from cxr_compare.evaluation.statistics.rank_test import (
    FEW_PATIENTS,
    MANY_PATIENTS,
    PERMUTATIONS,
)

_FAMILIES = {
    "answer": "differences of the primary figure, on which the answer rests",
    "findings": "differences in the findings below the answer",
    "joint": "joint system against all of its members, each at 5 %, in the primary figure",
    "joint_findings": "joint system against all of its members in further figures",
    "margin": "differences from the reference against the margin, by Bonferroni",
    "groups": "groups of images against all other images",
}
_HITS = {
    "froc_iou": (
        "A box finds a lesion of the FROC curve by an IoU of at least 0.2, because outlines of "
        "opacities are vague and a coarse box still shows where to look."
    ),
    "froc_centre": (
        "By centre, a box finds a lesion on which its centre lies, a rule that boxes of any size "
        "can meet."
    ),
    "coco": "AP50 asks for an IoU of 0.5, the rule of PASCAL VOC and COCO, which rewards outlines.",
    "rsna": "The RSNA score averages over IoUs from 0.4 to 0.75, as the challenge of 2018 did.",
    "vinbigdata": (
        "The VinBigData score asks for an IoU above 0.4, as the challenge of 2021 did; half of it "
        "is the average precision of the images without a finding."
    ),
    "point": (
        "A point is right if it lies on a lesion, the only rule that boxes and maps can both meet."
    ),
}
"""Rules by which a box or a point hits a lesion, with their reasons, by kind of figure."""


def hits_text(made: IntervalFacts) -> str:
    """Say by which rules boxes and points hit lesions, and why; empty without such figures."""
    return " ".join(sentence for kind, sentence in _HITS.items() if kind in made.hits)


def _auroc(cite: Cite) -> list[str]:
    """Describe the variance of an AUROC, and what intervals and tests make of it."""
    return [
        "AUROC: the share of the pairs of a positive and a negative image that the scores order "
        "rightly; a tie counts half.",
        f"Its variance is summed by patient after Obuchowski (1997){cite('obuchowski1997')}: a "
        "positive image adds the share of the negative images below it, minus the AUROC, divided "
        "by the number of positive images, and a negative image likewise.",
        "The sum of a patient over the images of one class is divided by 1 minus the patient's "
        f"share of these images, after Mancl and DeRouen (2001){cite('manclderouen2001')}, and "
        "multiplied by √((n − 1) / n), where n patients have such images.",
        "The part q of a patient is the sum over both classes, or for a difference q of the first "
        "system minus q of the second, and the variance is V = Σ q².",
        "Intervals and tests use Student's t with the smaller of two degrees of freedom: "
        f"Satterthwaite's{cite('satterthwaite1946')}, 2 V² / Σ q⁴, and "
        "(1/a + 1/b)² / (1 / (a² (a − 1)) + 1 / (b² (b − 1))), where a and b are the effective "
        "numbers of patients m = (Σ k)² / Σ k² of both classes, with k images of each patient.",
        "The interval of a single AUROC A is computed on the logit, logit A ± t √V / (A (1 − A)), "
        f"and cut at the exact Clopper-Pearson interval{cite('clopperpearson1934')} of A. Its "
        "trials, also for an AUROC of 0 or 1, are the pairs of a positive and a negative patient "
        "in which no patient occurs twice, at most the smaller m; they need not be whole (beta "
        "quantiles).",
        "The interval of a difference is on the plain scale, and its two-sided p comes from the "
        "same t.",
    ]


def _counts(made: IntervalFacts, cite: Cite) -> list[str]:
    """Describe the closed interval of a figure at a threshold."""
    sentences = [
        "Figures at a threshold: the interval is that of the printed threshold, from the true and "
        "false positives and negatives (TP, FP, TN, FN) of each patient.",
        "Sensitivity, specificity, precision, negative predictive value, accuracy and localised "
        "sensitivity are shares s of images; q of a patient is s minus the share without the "
        "patient, times √((n − 1) / n), where n patients have images in the denominator (jackknife"
        f"{cite('manclderouen2001')}), and V = Σ q².",
        "The interval is logit s ± t √V / (s (1 − s)), with the smaller of 2 V² / Σ q⁴ and m − 1 "
        "degrees of freedom, cut at the exact interval of s in m trials; m is the effective number "
        "of patients of the images in the denominator, and a share of 0 or 1 has the exact "
        "interval.",
        "F1 and its interval are 2 J / (1 + J) of the share J = TP / (TP + FP + FN).",
        "The denominators of precision, negative predictive value and J hold images of both "
        "classes. There V is multiplied, and m divided (but not to below 2), by w, because the "
        "few patients of a rare class may happen to be those with few images. w is the m of the "
        "images of the rarer class, the one with the smaller m, divided by T² / (T + b Σ n (n − "
        "1)), at least 1: n are the images of each patient, T = a Σ n, a is the mean over "
        "patients of the share of their images that are of the class, and b the mean over "
        "patients with several images of the share of the pairs of their images that are both of "
        "the class.",
        "Balanced accuracy, MCC and likelihood ratios are computed with one more patient of each "
        f"of the four outcomes{cite('agresticaffo2000')}, who has as many images as the patients "
        "of the class have on average. Of these counts, the balanced accuracy, (1 + MCC) / 2 or "
        "LR / (1 + LR) has its interval on the logit in the same way, with 2 V² / Σ q⁴ degrees of "
        "freedom and not cut; it is widened where it leaves out the printed figure. MCC depends on "
        "the share of positive images, so its V is multiplied by w.",
    ]
    if made.chosen:
        sentences.append(
            "Thresholds were chosen on validation images: other validation patients would have "
            "chosen others, which the intervals of single figures leave out and those of "
            "differences include."
        )
    return sentences


def _bootstrap(made: IntervalFacts, cite: Cite) -> list[str]:
    """Describe the intervals and tests that resamples of the patients give."""
    n_resamples = "an unknown number of" if made.replicates is None else f"{made.replicates:,}"
    sentences = [
        f"Other figures and differences: patient-cluster bootstrap{cite('fieldwelsh2007')}, "
        f"{n_resamples} resamples, the same for all systems."
    ]
    if made.refitted:
        sentences.append(
            "Thresholds and rules of boxes were chosen again on resampled validation patients in "
            "each resample."
        )
    elif made.has_thresholds:
        sentences.append("Thresholds stayed fixed.")
    if made.fixed:
        sentences.append(f"Choices that stayed fixed: {listing(made.fixed)}.")
    sentences.append(
        "Intervals are percentiles, for few patients further out"
        f"{cite('hesterberg2015')}: the lower one is Φ(−√(m / (m − 1)) t), with t the 97.5 % "
        "quantile of Student's t with m − 1 degrees of freedom, and m the effective number of "
        "patients of the rarer class, or of the class of which the figure is a share. Where a "
        "threshold or score cut is chosen again, they are the 2.5 % and 97.5 % percentiles."
    )
    if made.lowered:
        sentences.append(
            "For the lower end of an average precision of boxes, the resamples below their median "
            "are lowered by twice the bias (the mean of all minus the figure), because few "
            "lesions make it too high."
        )
    if made.tested:
        sentences.append(
            "p of a difference is 2 (c + 1) / (R + 1), at most 1, where c of R resamples lie at 0 "
            "or on the side of 0 that has fewer. Where no choice is made again, it is raised for "
            "few patients, to 2 T(√((m − 1) / m) Φ⁻¹(p / 2)) of Student's t with m − 1 degrees of "
            "freedom."
        )
    return sentences


def _chance(cite: Cite) -> list[str]:
    """Describe the test of an AUROC of 0.5."""
    return [
        "Better than chance: two-sided test of the mean ranks of positive and negative images, "
        f"with {PERMUTATIONS:,} permutations of labels between patients"
        f"{cite('dattasatten2005')}; if patients have images of both labels, of the statistic "
        f"divided by its error by patient{cite('chungromano2013')}. With more than "
        f"{MANY_PATIENTS:,} patients, at least {FEW_PATIENTS} of them in the rarer class, this "
        "statistic is compared with the normal distribution."
    ]


def _exact(cite: Cite) -> list[str]:
    return [
        f"Shares of 0 or 1: exact Clopper-Pearson intervals{cite('clopperpearson1934')}, with "
        "patients (for AUROC, pairs of patients) as trials."
    ]


def _seeds(cite: Cite) -> list[str]:
    return [
        "Several training seeds: analysis of Obuchowski and Rockette"
        f"{cite('obuchowskirockette1995')} with Hillis' degrees of freedom{cite('hillis2007')}, "
        "seeds random."
    ]


def families_text(made: IntervalFacts, cite: Cite) -> str:
    """Name the families of claims and their common bound; empty for a single comparison."""
    if sum(made.families.values()) < 2:
        return ""
    parts = [
        f"{_FAMILIES[name]} ({counted(size, 'test' if name == 'groups' else 'comparison')})"
        for name, size in made.families.items()
    ]
    within, where = "one family", "it"
    if len(parts) > 1:
        within = f"each of {len(parts)} families"
        where = f"a family, and at most {5 * len(parts)} % over all of them"
    sentences = [
        f"Several comparisons: Holm's method{cite('holm1979')} within {within}: "
        f"{'; '.join(parts)}.",
        f"The chance of at least one false claim is at most 5 % in {where}.",
    ]
    if "joint" in made.families or "joint_findings" in made.families:
        sentences.append(
            "A joint system is claimed to be better only where it exceeds each of its members "
            f"(intersection-union test{cite('berger1982')}); its p is the largest of theirs."
        )
    return " ".join(sentences)


def uncertainty_text(made: IntervalFacts, cite: Cite) -> str:
    """Name the methods of all intervals and tests, and cite them."""
    sentences: list[str] = []
    if "obuchowski" in made.all:
        sentences += _auroc(cite)
    if made.chance:
        sentences += _chance(cite)
    if "counts" in made.all:
        sentences += _counts(made, cite)
    if "bootstrap" in made.all:
        sentences += _bootstrap(made, cite)
    if "exact" in made.all:
        sentences += _exact(cite)
    if "seeds" in made.all:
        sentences += _seeds(cite)
    sentences.append(families_text(made, cite))
    if not made.all:
        sentences.append("No intervals were computed.")
    return " ".join(sentence for sentence in sentences if sentence)
