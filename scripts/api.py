"""What the verbs do, for Python: `cxr_compare` names these functions beside the pieces."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from data_prep.contracts.errors import InputError
from evaluation.report.files import MOST_THUMBNAILS
from scripts import console

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from PIL.Image import Image

    from data_prep.store.dataset import DataSet
    from evaluation.compare.comparison import Comparison
    from evaluation.report.cases import CaseSource


class InFolder(Protocol):
    """What lies in a folder: predictions, or a run."""

    @property
    def folder(self) -> Path:
        """Where it lies."""


Source = str | Path | InFolder
"""A folder of predictions or of a run, or what was opened from one."""


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
    progress: bool = False,
) -> ComparisonResult:
    """Judge systems on the same test images, as ``cxr compare`` does.

    Args:
        systems: By display name, the reference system first: folders of runs or predictions, or
            runs and predictions that were opened; several training seeds of one system as a list.
            A run is predicted and tuned first.
        data: A prepared data set.
        out: Report folder to make, which also keeps what runs predicted; without one nothing is
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
        progress: Whether to say what is going on, on stderr.

    Returns:
        The answer, its figures as tables, and the report where one was written.

    Raises:
        InputError: As in `compare_systems`, or a folder holds something else.
    """
    from data_prep.store.dataset import DataSet
    from evaluation.report.tables import table_rows
    from scripts.compare import (
        further_policies,
        judge_systems,
        read_question,
        report_folder,
        write_comparison,
    )
    from scripts.own_split import own_split

    dataset = data if isinstance(data, DataSet) else DataSet.open(data)
    named = [(name, _folders(given)) for name, given in systems.items()]
    asked = read_question(None if protocol is None else Path(protocol), margin, target)
    judged = dataset.target(asked.target or target, option="target=NAME")
    rows = table_rows(metrics)
    options: dict[str, Any] = {
        "split": own_split(split, [path for _, paths in named for path in paths], dataset),
        "protocol": asked,
        "images": images,
        "replicates": replicates,
        "seed": seed,
        "prevalence": prevalence,
        "unit": unit,
        "extra_policies": further_policies(policies, rows),
    }
    page = None
    with console.silent(not progress):
        if out is None:
            with tempfile.TemporaryDirectory(prefix="cxr-compare-") as temporary:
                comparison = judge_systems(named, dataset, judged, Path(temporary), **options)
        else:
            folder = Path(out)
            with report_folder(folder):
                comparison = judge_systems(named, dataset, judged, folder, **options)
                page = write_comparison(
                    comparison, dataset, folder, seed=seed, cases=cases, rows=rows,
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
        return (
            f"<p><b>{html.escape(self.headline)}</b></p><ul>{cautions}</ul>{self.table.to_html()}"
        )

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
        return tuple(finding.text for finding in self._answer.findings)

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
        return self.comparison.failures

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

    def overlay(self, image_id: str, *, panel: int = 360) -> Image:
        """One test image: as it is, the truth, and what each system made of it.

        Args:
            image_id: One of `decisions`.
            panel: Longer side of each panel, px.

        Raises:
            InputError: It was not judged, or its file cannot be read.
        """
        from PIL import Image

        from evaluation.overlays.draw import draw_overlay
        from evaluation.report.cases import ImageFacts

        if image_id not in set(self.decisions["image_id"]):
            raise InputError(f"image '{image_id}' is none of the test images that were judged")
        drawn = draw_overlay(
            self.dataset.read_original(image_id),
            self._cases.truth(image_id),
            self._cases.readings(image_id),
            finding=self.comparison.target.display_name,
            title=image_id,
            facts=ImageFacts(self.dataset).words(image_id),
            panel=panel,
        )
        return Image.fromarray(drawn)

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
