"""Files for a paper: two tables as LaTeX and Markdown, and a methods text."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.data_prep.base.errors import counted
from cxr_compare.data_prep.base.files import write_text
from cxr_compare.evaluation.metrics import METRICS, metric_title
from cxr_compare.evaluation.policies import is_given, policy_text
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.faces import as_latex, as_markdown
from cxr_compare.evaluation.report.sections import paper_sections
from cxr_compare.evaluation.report.tables import known_figures, paper_metrics
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.figure_text import score_text
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import Answer

_PACKAGES = "% Packages: booktabs. The tables are as wide as a page of two columns.\n"
_OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def write_paper(answer: Answer, figures: pd.DataFrame, out: Path) -> str:
    """Write both tables as LaTeX and as Markdown, and the methods text, which is returned."""
    made = paper_sections(answer, figures)
    latex = [as_latex(*each) for each in zip(made, ("systems", "differences"), strict=False)]
    write_text(out / files.LATEX_TABLE, _PACKAGES + "\n".join(latex))
    write_text(out / files.MARKDOWN_TABLE, "\n".join(map(as_markdown, made)))
    methods = " ".join(_sentences(answer, figures))
    write_text(out / files.METHODS_TEXT, f"{methods}\n")
    return methods


def _sentences(answer: Answer, figures: pd.DataFrame) -> Iterator[str]:
    """Yield the sentences of the methods text, each from the records of the report."""
    counts, made = answer.counts, answer.provenance
    title = f"{METRICS[answer.primary[0]].inside} for {inside_sentence(answer.title)}"
    yield (
        f"{listing(answer.single)} were compared in {title}."
        if len(answer.single) > 1
        else f"{answer.single[0]} was evaluated by {title}."
    )
    trained = [name for name in answer.single if (made.systems.get(name) or {}).get("recipe")]
    for name in trained:
        yield _trained(name, made.systems[name])
    if given := [name for name in answer.single if name not in trained]:
        yield f"The answers of {listing(given)} were read from results that were given."
    if answer.joint:
        yield (
            f"{answer.joint} is a logistic regression of the scores of {listing(answer.members)}, "
            "fitted on validation images."
        )
    of_set = (
        f" of the data set {made.data_set.name}" if made.data_set and made.data_set.name else ""
    )
    patients = f" of {counted(counts['patients'], 'patient')}" if "patients" in counts else ""
    yield (
        f"The test set had {counts['images']:,} {answer.units}{patients}{of_set}, "
        f"{counts['positive']:,} of them positive."
    )
    yield from _thresholds(answer)
    alone = known_figures(answer, figures, answer.systems)
    shown = paper_metrics(answer, figures)
    methods = _methods(shown, alone)
    resampled = alone["metric"].isin(shown) & (alone["method"] == BOOTSTRAP)
    drawn = f" ({made.bootstrap['replicates']:,} resamples, seed {answer.seed})"
    yield f"Intervals are 95 %: {methods}{drawn if resampled.any() else ''}."
    yield from _of_differences(answer, figures, shown)
    if answer.margin:
        yield answer.sentences[1]
    fixed = made.protocol.get("file_sha256")
    yield (
        "A protocol file fixed the question."
        if fixed
        else "The question was not fixed beforehand: the analysis is exploratory."
    )
    versions = made.versions or {}
    named = [f"{name} {versions[name]}" for name in ("cxr-compare", "torch") if name in versions]
    yield f"Figures were computed with {listing(named)}."


def _of_differences(answer: Answer, figures: pd.DataFrame, shown: Collection[str]) -> Iterator[str]:
    """Yield how the differences of the table were tested."""
    claims = [each for each in answer.claims if each["p_value"] is not None]
    tested = {(each["metric"], each["policy"]) for each in claims}
    rows = figures[figures["first"].isin(answer.single) & figures["second"].isin(answer.single)]
    keys = zip(rows["metric"], rows["policy"], strict=True)
    is_tested = pd.Series([key in tested for key in keys], rows.index, dtype=bool)
    methods = _methods(shown, rows[is_tested])
    if not methods:
        return
    n_tests = answer.n_findings * sum(each["family"] == "answer" for each in claims)
    correction = f", corrected by Holm's method over {n_tests} tests" if n_tests > 1 else ""
    yield f"Differences are paired on the same {answer.units}{correction}: {methods}."
    if answer.joint:
        yield f"Differences of {answer.joint} from its members are not corrected."
    if answer.policy and not is_given(answer.policy):
        yield "Thresholds are chosen again in the resamples of differences."


def _methods(shown: Collection[str], rows: pd.DataFrame) -> str:
    """Return the method of each interval of the figures that the tables show."""
    found: dict[str, list[str]] = {}
    rows = rows[rows["ci_low"].notna() & rows["metric"].isin(shown)]
    for row in rows.drop_duplicates(["method", "metric"]).to_dict("records"):
        found.setdefault(row["method"], []).append(METRICS[row["metric"]].inside)
    return "; ".join(f"{listing(titles)} by {method}" for method, titles in found.items())


def _trained(name: str, record: Mapping[str, Any]) -> str:
    """Return how a system was trained."""
    recipe = record["recipe"]
    run, config = recipe.get("run") or {}, recipe.get("config") or {}
    training, size = config.get("training") or {}, (recipe.get("preprocess") or {}).get("size")
    begin = "random weights" if run.get("pretrained") == "none" else f"{run.get('pretrained')}"
    trained = record.get("trained_on") or {}
    images = trained.get("train", counted(run["n_train"], "image"))
    learned = f" ({run['n_boxes']:,} boxes)" if "n_boxes" in run else ""
    kept = "the last epoch was kept"
    if run["monitor"] != "epoch":
        on = trained.get("val", counted(run["n_val"], "image"))
        kept = f"epoch {run['best_epoch']} was kept by {metric_title(run['monitor'])} on {on}"
    optimiser = training.get("optimiser", "")
    return (
        f"{name} is a {run.get('model_kind')} ({recipe.get('network')}, images of {size} by {size} "
        f"pixels), trained from {begin} on {images}{learned} for "
        f"{counted(run['epochs'], 'epoch')} ({_OPTIMISERS.get(optimiser, optimiser)}, learning "
        f"rate {training.get('learning_rate'):g}, batches of {training.get('batch_size')}); {kept}."
    )


def _thresholds(answer: Answer) -> Iterator[str]:
    policy = answer.policy
    found = [(name, of.get(policy)) for name, of in answer.thresholds.items()]
    texts = [f"{score_text(value)} for {name}" for name, value in found if value is not None]
    if not texts:
        return
    how = "were given" if is_given(policy) else f"for {policy_text(policy)} were chosen"
    on = "" if is_given(policy) else " on validation images"
    yield f"Score thresholds {how}{on}: {listing(texts)}."
