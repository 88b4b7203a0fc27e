"""Export of a run: its network in another format.

The export is kept only if its answers agree with those of the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.output_folders import atomic_folder
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.pixel_store import PixelStore
from cxr_compare.data_prep.store.preprocess import Preprocess
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.detection.dense import DenseDetector
from cxr_compare.networks.cost import count_flops
from cxr_compare.serving.export_graph import (
    calibration_images,
    layout_of,
    quantise,
    write_graph,
    write_graph_with_boxes,
)
from cxr_compare.serving.export_spec import (
    CARD_FILE,
    JOINT_MEMBERS,
    PACKAGES,
    PREPROCESS_FILE,
    Card,
    ExportSpec,
    Format,
    Precision,
    Proof,
)
from cxr_compare.serving.exported_model import ExportedModel, open_session, openvino_computes_bf16
from cxr_compare.serving.guard import GUARD_NAME
from cxr_compare.serving.joint_model import member_folders
from cxr_compare.serving.parity import prove
from cxr_compare.serving.run import Run
from cxr_compare.serving.trained_model import TrainedModel
from cxr_compare.training.run_folder import RunFolder
from cxr_compare.training.run_info import RunInfo

REQUIREMENTS_FILE = "requirements.txt"
# What `cxr predict EXPORT IMAGE` imports; tests/serving/test_bare.py runs it with no other package.
_PREDICTS_WITH = (
    "contourpy",
    "cyclopts",
    "filelock",
    "markupsafe",
    "matplotlib",
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pyarrow",
    "pycocotools",
    "pydantic",
    "pydicom",
    "pyjpegls",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "python-gdcm",
    "rich",
    "scipy",
    "simplejpeg",
)


def export_run(
    run: Path,
    out: Path,  # new or empty; it appears only when it is complete
    format: Format,  # noqa: A002
    precision: Precision,
    dataset: DataSet | None = None,
    store: PixelStore | None = None,
) -> Proof:
    """Write the network of a run in another format, and accept it only if it predicts the same.

    ``bf16`` and ``int8`` are checked on validation images, and ``int8`` is calibrated on training
    images. Both need the data set of the run, with its pixels stored at the size of the run.
    Without a data set a float32 export is checked on synthetic images. `out` must be new or empty,
    and appears only when it is complete. Raises InputError if the training has not ended, the
    format does not have this precision, images are missing, or the predictions differ too much from
    those of the run.
    """
    _require_possible(format, precision, dataset)
    loaded = Run.open(run, device="cpu").load()
    model = loaded.model
    if not isinstance(model, TrainedModel):
        raise InputError(f"{run}: an export; give the run that it was made of")
    validation, training = _images_of(model.run, dataset, precision)
    with atomic_folder(out) as folder:
        spec = _describe(loaded, model, format)
        decision = loaded.decision
        write_graph(model.model, folder, format, spec.facts(model.preprocess, decision))
        if store is not None and precision == "int8":
            quantise(folder, store.image, training)
        if format == "onnx" and isinstance(model.model, DenseDetector):
            facts = spec.facts(model.preprocess, decision, with_boxes=True)
            write_graph_with_boxes(model.model, folder, decision, facts)
        _write_companions(loaded, folder)
        write_requirements(folder, format)
        spec = spec.with_values(precision=precision)
        spec.complete(folder)
        try:
            proof = prove(loaded, ExportedModel.open(folder), dataset, store, validation)
        except InputError as error:
            raise InputError(f"{out}: {error}") from None
        _write_card(folder, spec, proof, training)
    return proof


def export_joint(
    run: Path,
    out: Path,
    format: Format,  # noqa: A002
    precision: Precision,
    dataset: DataSet | None,
    progress: Progress,
) -> Proof:
    """Write a joint system with its members in another format, into one folder.

    The members must be runs. Without a data set the exports are checked on drawn images. The proof
    is that of the member whose scores differ most.
    """
    _require_possible(format, precision, dataset)
    proofs: list[Proof] = []
    with atomic_folder(out) as folder:
        unneeded = shutil.ignore_patterns(JOINT_MEMBERS, "exports", ".*")
        shutil.copytree(run, folder, ignore=unneeded, dirs_exist_ok=True)
        for member in member_folders(run):
            size = Preprocess.read(member / PREPROCESS_FILE).size
            store = None if dataset is None else dataset.make_store(size, progress)
            target = folder / JOINT_MEMBERS / member.name
            proofs.append(export_run(member, target, format, precision, dataset, store))
    return max(proofs, key=lambda proof: proof.score_difference)


def write_requirements(folder: Path, format: Format) -> None:  # noqa: A002
    """Write ``requirements.txt`` with the installed versions of packages that an export needs."""
    lines = []
    for name in (*_PREDICTS_WITH, PACKAGES[format]):
        try:
            lines.append(f"{name}=={metadata.version(name)}\n")
        except metadata.PackageNotFoundError:  # a runtime for GPUs has another name
            lines.append(f"{name}\n")
    (folder / REQUIREMENTS_FILE).write_text("".join(lines), encoding="utf-8")


def _require_possible(
    format: Format,  # noqa: A002
    precision: Precision,
    dataset: DataSet | None,
) -> None:
    if precision != "fp32" and format == "onnx":
        raise InputError(
            f"--precision {precision}: --format onnx is fp32 only; take --format openvino, which "
            "computes faster at lower precisions on processors"
        )
    if precision == "bf16" and not openvino_computes_bf16():
        raise InputError(
            "--precision bf16: this processor has no bf16 arithmetic; take --precision fp32 or int8"
        )
    if precision != "fp32" and dataset is None:
        raise InputError(
            f"--precision {precision}: is evaluated on the run's validation images; give the data "
            "set that it was trained on with --data"
        )


def _images_of(
    run: RunFolder, dataset: DataSet | None, precision: Precision
) -> tuple[list[str], list[str]]:
    """Return the run's validation images in a data set, and training images to calibrate on."""
    if dataset is None:
        return [], []
    seen = run.seen
    here = set(dataset.images["image_id"])
    validation = sorted(here.intersection(seen.loc[seen["role"] == "val", "image_id"]))
    if not validation:
        raise InputError(
            f"{dataset.folder}: has none of the run's validation images; give the data set that "
            f"{run.folder} was trained on"
        )
    if precision != "int8":
        return validation, []
    made_on = run.info.data_set
    split = made_on.split if made_on and made_on.split else "default"
    return validation, calibration_images(seen, dataset, split)


def _describe(run: Run, model: TrainedModel, format: Format) -> ExportSpec:  # noqa: A002
    size = model.preprocess.size
    network = model.model
    level_sizes, map_frame = layout_of(network)
    info = model.info
    kept = info.model_fields_set - {"command"}  # the command names local folders
    origin = RunInfo(**{name: getattr(info, name) for name in kept}).with_values(
        folder=str(model.folder.resolve()),
        inference_id=model.training_id(),
        flops=count_flops(network, size),
        synthetic=model.run.synthetic,
    )
    return ExportSpec(
        format=format,
        precision="fp32",
        kind="scores" if map_frame else "boxes",
        findings=model.learnt,
        target=run.target,
        size=size,
        level_sizes=level_sizes,
        map_frame=map_frame,
        map_levels=tuple(run.map_levels.items()),
        run=origin,
        validation_auroc=run.validation_auroc,
    )


def _write_companions(run: Run, folder: Path) -> None:
    """Write what an answer needs beside the network: preprocessing, guard and decision."""
    Preprocess.read(run.folder / PREPROCESS_FILE).write(folder / PREPROCESS_FILE)
    if run.guard is not None:
        run.guard.write(folder / GUARD_NAME)
    if run.decision is not None:
        (folder / "decisions").mkdir()
        run.decision.write(folder / "decisions" / run.decision_file.name)


def _write_card(folder: Path, spec: ExportSpec, proof: Proof, training: Sequence[str]) -> None:
    info = spec.run
    made_on = info.data_set.name if info.data_set else None
    kind = {"boxes": "a lesion detector", "scores": "an image classifier"}[spec.kind]
    card = Card(
        kind=f"{info.name}, {kind} of {', '.join(spec.findings)}, as {spec.backend}",
        run=str(info.folder),
        learned_from=(
            f"{made_on}: {counted(info.n_train or 0, 'training image')}, "
            f"{counted(info.n_val or 0, 'validation image')}"
        ),
        calibrated_on=counted(len(training), "training image") if training else None,
        runtime=open_session(folder, spec).package,
        proof=proof,
        **provenance(),
    )
    card.write(folder / CARD_FILE)
