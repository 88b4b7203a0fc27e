"""Choice, on validation images, whether a detector joins test-time views by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from cxr_compare.data_prep.store.views import parse_views
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.evaluation.choices import Choices
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.stored_predictions import tune_predictions
from cxr_compare.networks.cost import count_flops
from cxr_compare.serving.predict_folder import predict_data_set, predict_validation
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_info import RunInfo


def choose_views(
    run: Path,
    test_set: LabelledSplit,
    views: Sequence[str],
    progress: Progress,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
) -> None:
    """Choose on validation whether a run joins test-time views by default; store it in the run.

    The validation images are predicted without and with the views. Each time validation chooses
    the overlap of boxes, as `cxr tune` does; the higher FROC mean wins, and the plain image if both
    are equal. A choice that was made before stays.

    `run` is a complete training of a detector, `test_set` the data set, target and split of it, and
    `views` are tried together, beside the plain image.
    """
    info = RunInfo.read(run / "run.json")
    if not views or info.tta is not None:
        return
    joined = ",".join(views)
    plain = TrainedModel.open(run, device=device)
    viewed = replace(plain, views=parse_views(joined))
    with TemporaryDirectory(dir=run, prefix="views-") as folder:
        with_views = predict_data_set(
            viewed,
            test_set.dataset,
            Path(folder) / "predictions",
            test_set.split,
            progress,
            validation_of=test_set.target,
        )
        without = predict_validation(run, test_set, progress, device=device)
        figures = {
            name: _froc_mean(tune_predictions(predictions, test_set))
            for name, predictions in (("plain", without), (joined, with_views))
        }
    is_better = (figures[joined] or 0.0) > (figures["plain"] or 0.0)
    info.with_values(tta=tuple(views) if is_better else (), tta_tried=figures).write(
        run / "run.json"
    )
    side = plain.preprocess.size
    cost = count_flops(viewed.viewed, side) / count_flops(plain.model, side)
    texts = ["unknown" if figure is None else f"{figure:.3f}" for figure in figures.values()]
    chosen = "joins them by default" if is_better else "takes the plain image"
    progress.say(
        f"Views {joined}: FROC mean {texts[1]} on validation, {texts[0]} without them; predict "
        f"--data {chosen}. They cost {cost:.1f} times the operations of the plain image."
    )


def _froc_mean(decision: Choices) -> float | None:
    """Return the highest FROC mean of the rules of boxes that validation tried."""
    figures = [row["froc_mean"] for row in decision.boxes_tried]
    return max((figure for figure in figures if figure is not None), default=None)
