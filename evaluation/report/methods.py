"""Methods and limits in sentences, made of the records of a report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.recipe import Recipe
from cxr_compare.evaluation.metrics import METRICS, metric_title
from cxr_compare.evaluation.output import GIVEN_SCORES, IMAGE_SCORES
from cxr_compare.evaluation.policies import is_given, policy_text
from cxr_compare.evaluation.statistics.figure_text import score_text
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import ReportAnswer
    from cxr_compare.evaluation.report.result import Result

_OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def methods_sentences(answer: ReportAnswer) -> Iterator[str]:
    """Yield the sentences of the methods text, each from the records of the report."""
    origin = answer.provenance
    figures = listing([METRICS[name].inside for name in answer.primary_metrics])
    title = f"{figures} for {inside_sentence(answer.title)}"
    yield (
        f"{listing(answer.single)} were compared in {title}."
        if len(answer.single) > 1
        else f"{answer.single[0]} was evaluated by {title}."
    )
    given_systems = []
    for name in answer.single:
        record = origin.systems[name]
        if recipe := Recipe.of(record):
            yield _trained(name, recipe, record["trained_on"])
        else:
            given_systems.append(name)
    if given_systems:
        yield f"The answers of {listing(given_systems)} were read from results that were given."
    yield from _image_scores(origin.systems)
    if answer.joint:
        yield (
            f"{answer.joint} is a logistic regression of the scores of {listing(answer.members)}, "
            "fitted on validation images."
        )
    of_set = (
        f" of the data set {origin.data_set.name}"
        if origin.data_set and origin.data_set.name
        else ""
    )
    yield f"There were {counts_text(answer, of_set, ' of them')}."
    yield from _thresholds(answer)
    resamples = f"{origin.replicates:,} resamples (seed {origin.seed})"
    yield f"Intervals are 95 %; those by resampling have {resamples}."
    yield from _of_differences(answer)
    if answer.margin:
        yield f"{answer.sentences[1]} The margin was stated on the command line."
    if origin.options.get("metric") == answer.primary[0]:
        yield f"The command named {answer.primary_title} as the figure that decides."
    versions = origin.versions or {}
    version_texts = [
        f"{name} {versions[name]}" for name in ("cxr-compare", "torch") if name in versions
    ]
    yield f"Figures were computed with {listing(version_texts)}."


def _image_scores(systems: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield how the boxes of detectors were reduced to the scores of images."""
    names_by_rule: dict[str, list[str]] = {}
    for name, record in systems.items():
        if rule := record.get("image_score"):
            names_by_rule.setdefault(rule, []).append(name)
    for rule, names in names_by_rule.items():
        score = f"{IMAGE_SCORES.get(rule, f'that of {rule}')}, and 0 without a box ({rule})"
        score = "given beside its boxes" if rule == GIVEN_SCORES else score
        yield f"The score of an image of {listing(names)} is {score}."
        if rule == "max":
            continue
        yield (
            f"A threshold of these scores is none of boxes: of {listing(names)} lesions found and "
            "kinds of errors of boxes are left out. For single images cxr predict and cxr serve "
            "answer by the best box."
        )


def counts_text(answer: ReportAnswer, of_set: str = "", of_them: str = "") -> str:
    """Return the numbers of test images, patients and positives behind the answer."""
    counts, patients = answer.counts, ""
    if "patients" in counts and answer.unit != "patient":
        patients = f" of {counted(counts['patients'], 'patient')}"
    test = f"{counts['images']:,} test {answer.units}{patients}{of_set}"
    return f"{test}, {counts['positive']:,}{of_them} positive"


def _of_differences(answer: ReportAnswer) -> Iterator[str]:
    """Yield how the differences were tested."""
    if not any(claim.tested for claim in answer.claims):
        return
    yield f"Differences are paired on the same {answer.units}."
    yield from correction(answer)
    if answer.policy and not is_given(answer.policy):
        yield "Thresholds are chosen again in the resamples of differences."


def correction(answer: ReportAnswer) -> Iterator[str]:
    """Yield over what p-values are corrected."""
    n_tests = answer.n_findings * sum(claim.tested for claim in answer.claims_of("answer"))
    if n_tests > 1:
        yield f"P-values are corrected by Holm's method over {n_tests} tests."
    if answer.joint:
        how = "corrected over the findings alone" if answer.n_findings > 1 else "not corrected"
        yield f"P-values of {answer.joint} against its members are {how}."


def _trained(name: str, recipe: Recipe, trained: Mapping[str, Any]) -> str:
    """Return how a system was trained, on images in the words of `trained`, if these are known."""
    training = recipe.config["training"]
    start = "random weights" if recipe.start == "none" else recipe.start
    images = trained.get("train", counted(recipe.n_train, "image"))
    boxes_text = "" if recipe.n_boxes is None else f" ({recipe.n_boxes:,} boxes)"
    kept_epoch_text = "the last epoch was kept"
    if recipe.monitor != "epoch":
        validation_images = trained.get("val", counted(recipe.n_val, "image"))
        kept_epoch_text = (
            f"epoch {recipe.best_epoch} was kept by {metric_title(recipe.monitor)} "
            f"on {validation_images}"
        )
    optimiser = _OPTIMISERS.get(training["optimiser"], training["optimiser"])
    return (
        f"{name} is a {recipe.model_kind} ({recipe.network}, images of {recipe.size} by "
        f"{recipe.size} pixels), trained from {start} on {images}{boxes_text} for "
        f"{counted(recipe.epochs, 'epoch')} ({optimiser}, learning "
        f"rate {training['learning_rate']:g}, batches of {training['batch_size']}); "
        f"{kept_epoch_text}."
    )


def _thresholds(answer: ReportAnswer) -> Iterator[str]:
    """Yield the thresholds by each policy; one score that all systems have once."""
    for policy in answer.policies:
        values = {name: by_policy.get(policy) for name, by_policy in answer.thresholds.items()}
        defined_values = {name: value for name, value in values.items() if value is not None}
        texts = [f"{score_text(value)} for {name}" for name, value in defined_values.items()]
        if is_given(policy) and defined_values:
            one_for_all = f"{score_text(next(iter(defined_values.values())))} for each system"
            yield (
                "The score threshold was given: "
                f"{one_for_all if len(defined_values) > 1 else texts[0]}."
            )
        elif defined_values:
            yield (
                f"Score thresholds for {policy_text(policy)} were chosen on validation images: "
                f"{listing(texts)}."
            )


def limits(result: Result) -> Iterator[str]:
    """Yield what a reader of the figures should know beside the methods text."""
    answer, rows = result.answer, result.figures
    counts, origin = answer.counts, answer.provenance
    if "patients" not in counts:
        yield "No patient is known: intervals are by image."
    n_rarer = min(counts["positive"], counts["images"] - counts["positive"])
    effective = rows.loc[rows["metric"] == "auroc", "effective_patients"].dropna()
    if "patients" in counts and len(effective) and effective.iloc[0] < n_rarer - 0.5:
        yield (
            f"Images of a patient are alike: the {n_rarer:,} of the rarer class tell as much as "
            f"{counted(round(effective.iloc[0]), 'image')} of different patients would (effective "
            "sample size). In intervals they stay together."
        )
    if any(map(is_given, answer.policies)) and sum(map(bool, answer.thresholds.values())) > 1:
        yield (
            "A given threshold is one score for all systems: the same score need not mean the same "
            "in two programs."
        )
    yield from answer.notes
    yield (
        "The intervals do not show how figures vary from one training to the next. The figures "
        "hold for this data set, its labels and its share of positive images: test the systems "
        "again before you use them elsewhere."
    )
    if origin.files:
        names = ", ".join(dict.fromkeys(file["name"] for file in origin.files))
        yield f"The figures rest on {names}."
    yield (
        "docs/metrics.md defines every figure and interval, and figures.csv names the method of "
        "each. answer.json has all versions, and what is known of data, splits and trainings."
    )
