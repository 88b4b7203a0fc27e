"""What the verbs do, for Python: `cxr_compare` names these functions beside the pieces."""

from __future__ import annotations

import html
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from data_prep.contracts.errors import InputError
from evaluation.report.files import MOST_THUMBNAILS, PAGE
from scripts import console

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison
    from evaluation.report.cases import CaseSource
    from serving.answer import LoadedRun


class InFolder(Protocol):
    """What lies in a folder: predictions, or a run."""

    @property
    def folder(self) -> Path:
        """Where it lies."""


Source = str | Path | InFolder
"""A folder of predictions or of a run, or what was opened from one."""


def load(
    run: str | Path, *, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32"
) -> LoadedRun:
    """Load a run of ``cxr train`` to ask it about single images.

    Args:
        run: Its folder.
        device: ``auto``, ``cpu`` or ``cuda``.
        precision: What it computes in; its decision was chosen at ``fp32``.

    Raises:
        InputError: The folder holds no complete run, or there is no such device.
    """
    if not Path(run).is_dir():  # before torch is imported, which takes seconds
        raise InputError(f"{run}: no such folder; give the folder of a run of cxr train")
    from scripts.machines.runtime import choose_device, tune_cpu

    tune_cpu()
    from serving.answer import LoadedRun  # imports torch, which reads the settings then

    return LoadedRun.open(Path(run), device=choose_device(device), precision=precision)


def train(
    config: str | Path,
    data: str | Path | DataSet,
    out: str | Path,
    *,
    resume: bool = True,
    despite_audit: bool = False,
    device: str = "auto",
    progress: bool = False,
    **settings: Any,
) -> LoadedRun:
    """Train a detector or a classifier, as ``cxr train`` does, and load it.

    A training that was interrupted goes on; one that has ended before is only loaded.

    Args:
        config: A TOML file of one model, or the name of a configuration that comes with the
            program.
        data: A prepared data set.
        out: Run folder to make.
        resume: Whether to go on with what lies there, or to refuse it.
        despite_audit: Whether to go on where the audit found what makes results wrong.
        device: ``auto``, ``cpu`` or ``cuda``.
        progress: Whether to say what is going on, on stderr.
        **settings: Keys of the configuration, by section: ``training={"epochs": 20}``, or as in
            ``--set``: ``**{"training.epochs": 20}``.

    Returns:
        The run.

    Raises:
        InputError: As ``cxr train`` refuses: an unknown key, a folder of another training, ...
    """
    from data_prep.store.dataset import DataSet
    from scripts.train import train as run_training

    overrides = list(_overrides(settings))
    folder = data.folder if isinstance(data, DataSet) else Path(data)
    with console.silent(not progress):
        run_training(
            str(config),
            folder,
            Path(out),
            set_=overrides,
            resume=resume,
            despite_audit=despite_audit,
            device=device,
        )
    return load(out, device=device)


def _overrides(settings: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Settings as ``--set`` takes them.

    Example:
        >>> list(_overrides({"training": {"epochs": 2}, "model.weights": "none"}))
        ['training.epochs=2', 'model.weights="none"']
    """
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _overrides(value, f"{section}{key}.")
        else:
            shown = str(value) if isinstance(value, Path) else value
            yield f"{section}{key}={json.dumps(shown)}"


def compare(
    systems: Mapping[str, Source | Sequence[Source]],
    data: str | Path | DataSet,
    *,
    out: str | Path | None = None,
    target: str | None = None,
    split: str | None = None,
    images: Literal["all", "common"] = "all",
    replicates: int = 2000,
    seed: int = 0,
    protocol: str | Path | None = None,
    margin: float | None = None,
    prevalence: float | None = None,
    unit: Literal["image", "study", "patient"] = "image",
    policies: Sequence[str] = (),
    metrics: Sequence[str] = (),
    cases: int = 8,
    thumbnails: int = MOST_THUMBNAILS,
    overwrite: bool = False,
    progress: bool = False,
) -> ComparisonResult:
    """Judge systems on the same test images, as ``cxr compare`` does.

    Args:
        systems: By display name, the reference system first: folders of runs or predictions, or
            runs and predictions that were opened; several training seeds of one system as a list.
            A run is predicted and tuned first.
        data: A prepared data set.
        out: Report folder to make, which also keeps what runs predicted. Without one nothing is
            written, and runs are predicted anew by each call.
        target: What is judged; may be left out where there is one.
        split: Judge on this split's test images; by default the systems'.
        images: ``all`` refuses systems whose images differ, ``common`` judges the rest.
        replicates: Bootstrap replicates.
        seed: Of the bootstrap and of random picks.
        protocol: TOML file that fixed the question beforehand.
        margin: Margin of non-inferiority and equivalence.
        prevalence: Share of positives where systems will be used: PPV and NPV there.
        unit: ``study`` or ``patient``: the image-level figures by these, too.
        policies: Threshold policies beside those that systems are tuned for.
        metrics: Rows of the table, such as ``recall@specificity>=0.90``; the usual six by default.
        cases: Drawn of each kind in the report.
        thumbnails: In the report, at most.
        overwrite: Whether to write a finished report anew; without, one on the same question stays
            as it is, and one on another is refused.
        progress: Whether to say what is going on, on stderr.

    Returns:
        The answer, its figures as tables, and the report where one was written.

    Raises:
        InputError: As in `compare_systems`, or a folder holds something else.
    """
    from data_prep.store.dataset import DataSet
    from evaluation.decisions.test_set import TestSet
    from evaluation.report.tables import table_rows
    from scripts.asked_before import asked_before, question_of
    from scripts.compare import (
        further_policies,
        judge_systems,
        read_question,
        report_folder,
        write_comparison,
    )
    from scripts.options import own_split

    dataset = data if isinstance(data, DataSet) else DataSet.open(data)
    named = [(name, _folders(given)) for name, given in systems.items()]
    asked = read_question(None if protocol is None else Path(protocol), margin, target)
    chosen = dataset.target(asked.target or target, option="target=NAME")
    rows = table_rows(metrics)
    split = own_split(split, [path for _, paths in named for path in paths], dataset)
    test_set = TestSet(dataset, chosen, split)
    further = further_policies(policies, rows)
    shared: dict[str, Any] = {
        "images": images, "replicates": replicates, "seed": seed, "prevalence": prevalence,
        "unit": unit,
    }  # fmt: skip

    def judge(folder: Path) -> Comparison:
        return judge_systems(
            named, test_set, folder, protocol=asked, extra_policies=further, **shared,
        )  # fmt: skip

    if out is None:
        with console.silent(not progress), tempfile.TemporaryDirectory(prefix="cxr-") as folder:
            return ComparisonResult(judge(Path(folder)), dataset, None, tuple(metrics))
    out = Path(out)

    def question() -> dict[str, Any]:
        return question_of(
            named, test_set, out, **shared, cases=cases, thumbnails=thumbnails,
            metrics=",".join(metrics) or None, margin=margin, policies=further,
            protocol=asked.file_sha256,
        )  # fmt: skip

    with console.silent(not progress):
        if not overwrite and asked_before(out, question()):
            return ComparisonResult(judge(out), dataset, out / PAGE, tuple(metrics))
        with report_folder(out):
            comparison = judge(out)
            page = write_comparison(
                comparison, dataset, out, question=question(), seed=seed, cases=cases, rows=rows,
                thumbnails=thumbnails,
            )  # fmt: skip
    return ComparisonResult(comparison, dataset, page, tuple(metrics))


def _folders(given: Source | Sequence[Source]) -> list[Path]:
    each = given if isinstance(given, Sequence) and not isinstance(given, str) else [given]
    return [Path(one if isinstance(one, str | Path) else one.folder) for one in each]


@dataclass(frozen=True)
class ComparisonResult:
    """What `compare` found: the answer in words, tables, charts and images.

    Attributes:
        comparison: All of it, as `write_report` takes it.
        dataset: The data set it was found on.
        report: ``report.html`` where one was written.
        metrics: Rows of `table`; without any the usual six.
    """

    comparison: Comparison
    dataset: DataSet
    report: Path | None = None
    metrics: tuple[str, ...] = ()

    def __repr__(self) -> str:
        of = repr(self.comparison).strip("<>").removeprefix("Comparison")
        return f"<ComparisonResult{of}, {self.report or 'no report written'}>"

    def _repr_html_(self) -> str:
        """The answer, its cautions and the table, in a notebook."""
        cautions = "".join(f"<li>{html.escape(each)}</li>" for each in self.cautions)
        table = self.table.to_html().replace("<td>", '<td style="white-space: nowrap">')
        return f"<p><b>{html.escape(self.headline)}</b></p><ul>{cautions}</ul>{table}"

    @property
    def headline(self) -> str:
        """The answer in one sentence that the intervals support."""
        return self._answer.headline

    @property
    def cautions(self) -> tuple[str, ...]:
        """What may make the answer wrong, the most harmful first."""
        return self._answer.cautions

    @property
    def findings(self) -> tuple[str, ...]:
        """Further comparisons, a sentence each."""
        return tuple(conclusion.text for conclusion in self._answer.conclusions)

    @cached_property
    def _answer(self) -> Any:
        return self.comparison.answer

    @cached_property
    def table(self) -> pd.DataFrame:
        """The report's table: figures and paired differences with 95 % intervals, as texts."""
        from evaluation.report.result_tables import summary_frame
        from evaluation.report.tables import table_rows

        return summary_frame(self.comparison, table_rows(self.metrics))

    @property
    def figures(self) -> pd.DataFrame:
        """Every figure of every system with its interval, a row each."""
        return self._rows(differences=False)

    @property
    def differences(self) -> pd.DataFrame:
        """Every paired difference with its interval, a row each; its system is ``A - B``."""
        return self._rows(differences=True)

    def _rows(self, *, differences: bool) -> pd.DataFrame:
        import pandas as pd

        of_units = self.comparison.by_unit
        parts = [self.comparison.metrics, *([] if of_units is None else [of_units.table()])]
        table = pd.concat(parts, ignore_index=True)
        of_systems = table["system"].isin(self.comparison.names)
        return table[~of_systems if differences else of_systems].reset_index(drop=True)

    @property
    def tests(self) -> pd.DataFrame:
        """Paired tests of every pair of systems."""
        return self.comparison.tests

    @property
    def failures(self) -> pd.DataFrame:
        """Where each system fails: figures of groups of images, lesions and patients."""
        return self.comparison.failures.infer_objects()

    @property
    def decisions(self) -> pd.DataFrame:
        """A row an image and system: label, score, probability, decision at each policy."""
        return self.comparison.decisions

    @cached_property
    def policy(self) -> str:
        """The threshold policy of everything that is shown at one threshold."""
        from evaluation.compare.failure_analysis import main_policy
        from evaluation.report.charts import policies_of

        return main_policy(policies_of(self.comparison), self.comparison.protocol.policy)

    def cases(self, per_kind: int = 4) -> pd.DataFrame:
        """The images that the report shows, by its rules: misses, false alarms, wrong places.

        Returns:
            ``kind``, ``image_id``, and ``of``: how many images there are of that kind.
        """
        import pandas as pd

        from evaluation.report.gallery import select_cases

        kinds = select_cases(
            self.decisions, self.comparison.names, self.policy, per_category=per_kind
        )
        rows = [(each.title, image, each.total) for each in kinds for image in each.image_ids]
        return pd.DataFrame(rows, columns=["kind", "image_id", "of"])

    def overlay(self, *image_ids: str, panel: int = 360) -> Figure:
        """Test images, one below the other: as it is, the truth, and what each system shows on it.

        Args:
            *image_ids: Of `decisions`.
            panel: Longer side of each panel, px.

        Raises:
            InputError: One was not judged, or its file cannot be read.
        """
        from evaluation.overlays.draw import as_figure, draw_overlay
        from evaluation.report.cases import ImageFacts

        judged, facts = set(self.decisions["image_id"]), ImageFacts(self.dataset)
        for image_id in image_ids:
            if image_id not in judged:
                raise InputError(f"image '{image_id}' is none of the test images that were judged")
        return as_figure([
            draw_overlay(
                self.dataset.read_original(image_id),
                self._cases.truth(image_id),
                self._cases.predictions(image_id),
                finding=self.comparison.target.display_name,
                title=image_id,
                facts=facts.words(image_id),
                panel=panel,
            )
            for image_id in image_ids
        ])  # fmt: skip

    @cached_property
    def _cases(self) -> CaseSource:
        from evaluation.report.cases import read_cases

        return read_cases(self.comparison, self.dataset, self.policy)

    def chart(self, key: str = "roc") -> Figure:
        """One chart of the report as a matplotlib figure.

        Args:
            key: ``roc``, ``pr``, ``froc-iou``, ``calibration``, or another of the report.

        Raises:
            InputError: The comparison has no such chart; names those that it has.
        """
        from evaluation.report.charts import policies_of, policy_markers, report_charts
        from evaluation.report.plot import draw_with_legend

        made = {chart.key: chart for chart in report_charts(self.comparison)}
        if key not in made:
            raise InputError(f"there is no chart '{key}'; this comparison has {', '.join(made)}")
        drawn = {point.marker for curve in made[key].curves for point in curve.points}
        markers = policy_markers(policies_of(self.comparison))
        return draw_with_legend(made[key], [each for each in markers if each[0] in drawn])
