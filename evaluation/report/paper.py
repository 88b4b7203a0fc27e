"""Tables and a methods text that a paper can take, made of the answer and figures of a report."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.data_prep.base.errors import counted, printable
from cxr_compare.data_prep.base.files import write_text
from cxr_compare.evaluation.image_blind import image_blind_name
from cxr_compare.evaluation.metrics import METRICS, metric_title, metrics_of
from cxr_compare.evaluation.policies import is_given, policy_text
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.tables import ordered, shown_claims
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.figure_text import (
    DASH,
    number,
    p_value_text,
    score_text,
)
from cxr_compare.evaluation.verdict.prose import inside_sentence, listing

if TYPE_CHECKING:
    from cxr_compare.evaluation.report.answer import Answer

_N_FIGURES = 6
"""Figures of a table for a paper, the most asked first: as many of these as stand there."""
_PACKAGES = "% Packages: booktabs. The tables are as wide as a page of two columns.\n"
_SIGNS = {"−": "$-$", "≥": r"$\geq$", "≤": r"$\leq$", "<": "$<$", ">": "$>$"}
"""Signs that LaTeX knows by another name."""
_LATEX = re.compile(r"[\\&%$#_{}~^]")
_SMALL = r"\centering" + "\n" + r"\footnotesize" + "\n" + r"\setlength{\tabcolsep}{3pt}"
_LATEX_NAMES = {"\\": "textbackslash{}", "~": "textasciitilde{}", "^": "textasciicircum{}"}
_MARKDOWN = re.compile(r"[\\`*_\[\]|]|<(?=[A-Za-z/!?])|&(?=[#A-Za-z])")
"""Signs that Markdown would obey in a cell: not the one of ``< 0.001``, which begins no tag."""
_OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}


def write_paper(answer: Answer, figures: pd.DataFrame, out: Path) -> str:
    """Write both tables as LaTeX and as Markdown, and the methods text, which is returned."""
    systems, differences = figure_table(answer, figures), difference_table(answer, figures)
    caption = _caption(answer)
    parts = [_latex(systems, caption, "systems")]
    texts = [_markdown(systems, caption)]
    if len(differences):
        of = "Differences between the systems with 95 % intervals and p-values."
        parts.append(_latex(differences, of, "differences"))
        texts.append(_markdown(differences, of))
    write_text(out / files.LATEX_TABLE, _PACKAGES + "\n".join(parts))
    write_text(out / files.MARKDOWN_TABLE, "\n".join(texts))
    methods = " ".join(_sentences(answer, figures))
    write_text(out / files.METHODS_TEXT, f"{methods}\n")
    return methods


def figure_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return six figures with their intervals as texts: a row for each system, highest first."""
    rows = _rows(answer, figures)
    cells = rows.assign(text=[_value(row) for row in rows.to_dict("records")])
    wide = cells.pivot_table("text", "first", "metric", aggfunc="first")
    wide = wide.reindex(index=ordered(answer, figures), columns=_metrics(answer, rows))
    table = wide.fillna(DASH).rename(columns=metric_title)
    return table.rename_axis("System").rename_axis(columns=None)


def _rows(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the known figures of systems without and at the threshold that is shown."""
    metric, at = answer.primary
    alone = figures[(figures["second"] == "") & figures["first"].isin(answer.systems)]
    of = (alone["metric"] == metric) & (alone["policy"] == at)
    of |= (alone["metric"] != metric) & alone["policy"].isin(["", answer.policy])
    of &= ~((alone["first"] == answer.joint) & alone["metric"].map(lambda m: METRICS[m].boxed))
    return alone[of & alone["estimate"].notna()]


def _metrics(answer: Answer, rows: pd.DataFrame) -> list[str]:
    """Return the figures of the table, the primary ones first."""
    beside = [name for name, metric in METRICS.items() if metric.beside == answer.primary[0]]
    usual = metrics_of("paper")
    if answer.box_figures:
        beside = [*answer.box_figures, *(name for name in usual if METRICS[name].leads_paper)]
    wanted = dict.fromkeys((*answer.primary_metrics, *beside, *usual))
    return [name for name in wanted if name in set(rows["metric"])][:_N_FIGURES]


def difference_table(answer: Answer, figures: pd.DataFrame) -> pd.DataFrame:
    """Return the tested differences between systems in figures of the other table, as texts."""
    blind = {image_blind_name(name) for name in answer.systems}
    rows = []
    shown = _metrics(answer, _rows(answer, figures))
    for claim in shown_claims(answer, figures):
        metric, policy = claim["metric"], claim["policy"]
        if claim["second"] in blind or claim["p_value"] is None or metric not in shown:
            continue
        rows.append(
            {
                "Difference": f"{claim['first']} − {claim['second']}",
                "Figure": metric_title(metric) + (f", {policy_text(policy)}" if policy else ""),
                "Value (95 % interval)": _value(claim),
                "p": p_value_text(claim["p_value"]),
                "p, corrected": p_value_text(claim["p_holm"]),
            }
        )
    table = pd.DataFrame(rows)
    if rows and (table["p"] == table["p, corrected"]).all():
        table = table.drop(columns="p, corrected")
    return table.set_index("Difference") if rows else table


def _value(row: Mapping[Any, Any]) -> str:
    """Return a figure with its interval, each with three decimals."""
    ends = [row["ci_low"], row["ci_high"]]
    value = number(row["estimate"])
    return value if pd.isna(ends).any() else f"{value} ({number(ends[0])} to {number(ends[1])})"


def _caption(answer: Answer) -> str:
    counts = answer.counts
    patients = f" of {counted(counts['patients'], 'patient')}" if "patients" in counts else ""
    by = "patient" if "patients" in counts else "image"
    text = f"Figures with 95 % intervals by {by} on {counts['images']:,} test {answer.units}"
    text += f"{patients}, {counts['positive']:,} of them positive."
    return f"{text} Decisions are {_at(answer.policy)}." if answer.policy else text


def _at(policy: str) -> str:
    return f"at the threshold for {policy_text(policy)}"


def _latex(table: pd.DataFrame, caption: str, label: str) -> str:
    """Return a table as LaTeX, with each interval below its value."""
    width = 14 if table.shape[1] >= _N_FIGURES else 32  # in characters
    shown = table.reset_index().map(lambda cell: _latex_cell(str(cell), width))
    shown.columns = [_latex_lines("b", textwrap.wrap(str(name), width)) for name in shown]
    style = shown.style.hide(axis="index")
    text = style.to_latex(
        hrules=True,
        environment="table*",
        position_float="centering",
        caption=_latex_text(caption),
        label=f"tab:{label}",
        column_format="l" * shown.shape[1],
    )
    text = str(text).replace(r"\centering", _SMALL)
    return text.replace(" \\\\\n", " \\\\\n\\addlinespace[3pt]\n")


def _latex_cell(cell: str, width: int) -> str:
    value, above, ends = cell.partition(" (")
    if above and ends.endswith(")") and " to " in ends:
        return _latex_lines("t", [value, f"({ends}"])
    return _latex_lines("t", textwrap.wrap(cell, width, break_long_words=False))


def _latex_lines(aligned: str, lines: Sequence[str]) -> str:
    """Return the lines of a cell, which its row aligns by the first (t) or the last one (b)."""
    text = r"\\".join(map(_latex_text, lines))
    if len(lines) == 1:
        return text
    return rf"\begin{{tabular}}[{aligned}]{{@{{}}l@{{}}}}{text}\end{{tabular}}"


def _latex_text(text: str) -> str:
    """Return a text as LaTeX shows it, whatever signs it has."""
    text = _LATEX.sub(lambda sign: "\\" + _LATEX_NAMES.get(sign[0], sign[0]), printable(text))
    for sign, name in _SIGNS.items():
        text = text.replace(sign, name)
    return text


def _markdown(table: pd.DataFrame, caption: str) -> str:
    rows = [[table.index.name, *table.columns], *table.reset_index().to_numpy().tolist()]
    lines = [" | ".join(map(_markdown_cell, row)) for row in rows]
    lines.insert(1, " | ".join(["---"] * len(rows[0])))
    return f"{_markdown_cell(caption)}\n\n" + "".join(f"| {line} |\n" for line in lines)


def _markdown_cell(cell: object) -> str:
    """Return a text as a cell of a Markdown table shows it, whatever signs it has."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(str(cell)))


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
    alone = _rows(answer, figures)
    shown = _metrics(answer, alone)
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
