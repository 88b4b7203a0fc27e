"""Choice of the back end that predicts: torch with a run, or a runtime with an export."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from cxr_compare.data_prep.contracts.errors import TRAIN_PACKAGES, InputError, require_packages
from cxr_compare.data_prep.store.identify_folder import require_kind
from cxr_compare.serving.export_spec import (
    CARD_FILE,
    JOINT_MEMBERS,
    PACKAGES,
    ExportSpec,
    Format,
    Precision,
    digest_files,
    is_export,
    is_joint,
)

if TYPE_CHECKING:
    from cxr_compare.serving.predictor import Predictor

_Backend = Literal["torch", "onnx", "openvino", "auto"]


def export_folder(run: Path, format: Format, precision: Precision) -> Path:  # noqa: A002
    """Return ``RUN/exports/FORMAT-PRECISION``, the default folder of an export of a run."""
    return run / "exports" / f"{format}-{precision}"


def require_torch(run: Path) -> None:
    """Check that the packages with which a run predicts are installed.

    If one is missing and the folder is no run, the error says the latter.
    """
    try:
        require_packages(f"{run} (a run)", "train", TRAIN_PACKAGES)
    except InputError:
        require_kind(run, "run")  # if the folder is no run, this error is the one to show
        raise


def open_model(folder: Path, **options: Any) -> Predictor:
    """Load the network of a run (of ``cxr train``) or an export (of ``cxr export``).

    The options are those of `TrainedModel.open`, such as ``device``; an export ignores them. Raises
    InputError if the folder is neither or damaged, or a package is missing.
    """
    if is_export(folder):
        from cxr_compare.serving.exported_model import ExportedModel

        return ExportedModel.open(folder)
    if is_joint(folder):
        from cxr_compare.serving.joint_model import JointModel

        return JointModel.open(folder, open_model, **options)
    require_torch(folder)
    from cxr_compare.serving.trained_model import TrainedModel

    return TrainedModel.open(folder, **options)


class ChosenBackend(NamedTuple):
    """The program (back end), folder and number format that `choose_backend` chose for predicting.

    `folder` is the run for torch, and the export for other programs. `words` is a sentence that
    says what was chosen, with the reason or the folder.
    """

    folder: Path  # a run for torch, else an export
    backend: Literal["torch", "onnx", "openvino"]
    precision: Precision
    words: str = ""  # the choice in one line


def choose_backend(
    folder: Path,
    backend: _Backend | None = None,
    precision: Precision | None = None,
    *,
    needs_torch: str | None = None,  # option that only torch supports
    gpu: bool = False,  # True if torch would use a GPU: `auto` then takes torch
    data: Path | None = None,  # data set in the advice on how to make an export
) -> ChosenBackend:
    """Choose the program that predicts (the back end), without loading it.

    A back end is the program that computes the network: torch, ONNX Runtime or OpenVINO. By default
    a run (folder of a training) predicts with torch in float32, and an export (its network in
    another format) with the runtime of that format. ``auto`` takes the fastest export of the run
    that this machine can compute, or torch if there is none.

    `needs_torch` is an option that only torch supports, such as ``--tta``. If torch would compute
    on a GPU (`gpu`), ``auto`` takes torch. `data` is the data set that an error names in the
    command that makes the export. Raises InputError if the export is missing, belongs to another
    training, cannot run on this machine, or does not fit the options.
    """
    if is_export(folder):
        return _given_export(folder, backend, precision, needs_torch)
    if is_joint(folder):
        return _given_joint(folder, backend, precision, needs_torch)
    wanted = precision or "fp32"
    if backend in ("onnx", "openvino"):
        if needs_torch:
            raise InputError(f"{needs_torch}: torch alone can; leave out --backend {backend}")
        if problem := _why_not(folder, backend, wanted, data):
            raise InputError(problem)
        return _exported(folder, backend, wanted)
    problems = []
    if backend == "auto" and not (needs_torch or gpu):
        for format in PACKAGES:  # noqa: A001
            if (problem := _why_not(folder, format, wanted, data)) is None:
                return _exported(folder, format, wanted)
            problems.append(problem)
    if wanted == "int8":
        fault = "--precision int8: torch computes in fp32 or bf16; add --backend openvino or onnx"
        raise InputError(next(iter(problems), fault))
    require_torch(folder)
    reason = needs_torch or ("a GPU is here" if gpu else next(iter(problems), ""))
    return ChosenBackend(folder, "torch", wanted, f"Back end: torch {wanted} ({reason})")


def _exported(run: Path, format: Format, precision: Precision) -> ChosenBackend:  # noqa: A002
    folder = export_folder(run, format, precision)
    return ChosenBackend(folder, format, precision, f"Back end: {format} {precision} ({folder})")


def _given_joint(
    folder: Path, backend: _Backend | None, precision: Precision | None, needs_torch: str | None
) -> ChosenBackend:
    """Return what predicts with a joint system: what its members are stored for, or its export."""
    if needs_torch:
        raise InputError(f"{needs_torch}: is for a single run; leave it out for {folder}")
    members = sorted((folder / JOINT_MEMBERS).iterdir())
    if backend in ("onnx", "openvino") and not all(map(is_export, members)):
        wanted = precision or "fp32"
        exported = export_folder(folder, backend, wanted)  # of all members together
        if not is_joint(exported):
            raise InputError(f"{_why_not(folder, backend, wanted, None)}")
        return _given_joint(exported, backend, precision, needs_torch)
    stored = None if backend == "auto" else backend
    chosen = [choose_backend(member, stored, precision) for member in members]
    words = f"Back end: {chosen[0].backend} {chosen[0].precision} ({folder})"
    return ChosenBackend(folder, chosen[0].backend, chosen[0].precision, words)


def _given_export(
    folder: Path, backend: _Backend | None, precision: Precision | None, needs_torch: str | None
) -> ChosenBackend:
    spec = ExportSpec.open(folder)
    if needs_torch:
        raise InputError(f"{needs_torch}: torch alone can; give the run in place of {folder}")
    if backend not in (None, "auto", spec.format):
        raise InputError(f"--backend {backend}: {folder} is for {spec.format}; leave --backend out")
    if precision not in (None, spec.precision):
        raise InputError(
            f"--precision {precision}: {folder} computes in {spec.precision}; leave --precision out"
        )
    words = f"Back end: {spec.backend} ({folder})"
    return ChosenBackend(folder, spec.format, spec.precision, words)


def _why_not(
    run: Path,
    format: Format,  # noqa: A002
    precision: Precision,
    data: Path | None,
) -> str | None:
    """Return why an export of a run cannot predict here; None if it can."""
    if format not in get_args(Format):
        raise InputError(f"--backend {format}: choose {', '.join(get_args(_Backend))}")
    folder = export_folder(run, format, precision)
    source = "DATA" if data is None else shlex.quote(str(data))
    if format == "onnx" and precision != "fp32":
        return f"--precision {precision}: exports to onnx are fp32 only; take --backend openvino"
    command = f"cxr export {shlex.quote(str(run))} --format {format}" + (
        "" if precision == "fp32" else f" --precision {precision} --data {source}"
    )
    if not is_export(folder):
        return f"{folder}: there is no such export; make it: {command}"
    if not (folder / CARD_FILE).is_file():
        return f"{folder}: was not proved against its run; remove it and run {command}"
    if ExportSpec.open(folder).run.inference_id != _run_id(run):
        return f"{folder}: was made of another training than {run}; remove it and run {command}"
    if find_spec(PACKAGES[format]) is None:
        package = PACKAGES[format]
        return f"--backend {format}: {package} is not installed; pip install {package}"
    from cxr_compare.serving.exported_model import (
        openvino_computes_bf16,  # imports numpy, which cxr --help does not need
    )

    if precision == "bf16" and format == "openvino" and not openvino_computes_bf16():
        return "--precision bf16: this processor has no bf16 arithmetic; take fp32 or int8"
    return None


def _run_id(run: Path) -> str:
    """Return the `inference_id` of the run as it is exported: torch on a processor."""
    digest = digest_files(run)
    digest.update(b"torch fp32 cpu")
    return digest.hexdigest()[:16]
