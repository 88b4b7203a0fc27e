"""`cxr dicom`: write answers for DICOM images as DICOM objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cxr_compare import Answer, InputError
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, remove_old_temporary_files
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import counted, require_packages
from cxr_compare.data_prep.images.image import starts_like_dicom
from cxr_compare.data_prep.images.loose_images import find_image_files
from cxr_compare.hospital.dicom_objects.result_identity import Algorithm, to_bytes
from cxr_compare.hospital.dicom_objects.source_header import Source, read_source
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    Backend,
    Device,
    Outcome,
    Policy,
    Precision,
    RunsAndImages,
    as_path,
    command,
    open_runs,
    read_paths,
    require_backends,
    say_cautions,
    sort_paths,
)
from cxr_compare.serving.answer_files import answer_files
from cxr_compare.serving.joint_answers import AnsweredFile

# Ends of the names of files that are written
_REPORT_END = "-sr.dcm"
_CAPTURE_END = "-sc.dcm"


@command
def dicom(
    *paths: RunsAndImages,
    out: Annotated[AnyPath, Argument(metavar="FOLDER")],
    strict: bool = False,
    policy: Policy = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
) -> Outcome:
    """Predict DICOM images, and write the answers as DICOM objects.

    The answers are those of cxr predict. For each image the command writes a structured report (TID
    1500) and a Secondary Capture of the overlay, both in the study of the image. Files that are no
    DICOM are left out. Exit status 1 means that a DICOM image got no objects, and 2 that none did.

    Args:
        paths: Runs (folders of cxr train) or exports (of cxr export), each as PATH or NAME=PATH,
            followed by DICOM files or folders of them.
        out: Folder for the objects, NAME-sr.dcm and NAME-sc.dcm. Earlier ones are replaced.
        strict: Leave out images with a warning, such as one that is no frontal chest X-ray. Without
            it they get objects that state the warning in place of a decision.

    Returns:
        Numbers of images that got objects, that got none, and of files that are no DICOM.

    Raises:
        InputError: A path is wrong, or no image got objects.

    Example:
        cxr dicom out/retinanet out/chexnet image.dcm --out out/dicom

        cxr dicom out/chexnet images --out out/dicom --backend openvino
    """
    require_packages("dicom", "hospital", ("highdicom",))
    folder = as_path(out)
    runs, sources = sort_paths(read_paths(paths))
    options = {"policy": policy, "backend": backend, "precision": precision, "device": device}
    require_backends(runs, options)
    found = [path for path in find_image_files(sources) if not _is_output(path, folder)]
    files = [path for path in found if _is_dicom(path)]
    if not files:
        raise InputError(f"dicom: {sources[-1]}: holds no DICOM file; give DICOM images")
    loaded = say_cautions(open_runs(runs, options))
    algorithms = [Algorithm.from_run(run) for run in loaded]
    stems: set[str] = set()

    def write(answered: AnsweredFile) -> str | None:
        if answered.answers is None:
            return None
        return _write(answered.file.path, answered.answers, algorithms, folder, stems)

    answers = answer_files(loaded, ([], files), console, strict=strict, on_answer=write)
    counts = {
        "written": len(files) - len(answers.left_out),
        "refused": len(answers.left_out),
        "no_dicom": len(found) - len(files),
    }
    notes = [f"{counts['refused']} refused, see above"] if counts["refused"] else []
    notes += [f"{counts['no_dicom']} no DICOM"] if counts["no_dicom"] else []
    note = f" ({'; '.join(notes)})" if notes else ""
    text = f"DICOM objects of {counted(counts['written'], 'image')}: {folder}{note}"
    return Outcome(text, counts, exit_status=answers.exit_status)


def _is_output(path: Path, folder: Path) -> bool:
    """Return True if an earlier call wrote this file."""
    return path.name.endswith((_REPORT_END, _CAPTURE_END)) and path.parent.resolve() == (
        folder.resolve()
    )


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return starts_like_dicom(file.read(132))


def _write(
    path: Path,
    answers: Sequence[Answer],
    algorithms: Sequence[Algorithm],
    folder: Path,
    stems: set[str],
) -> str | None:
    """Write both objects of one image; return the reason why there are none, else None."""
    from cxr_compare.hospital.dicom_objects.results import dicom_results

    try:
        results = dicom_results(Source.from_header(read_source(path)), answers, algorithms)
    except InputError as error:
        return f"{path}: {error}"
    if not stems:
        make_folder(folder)
        remove_old_temporary_files(folder)
    number, stem = 1, path.stem
    while stem in stems:
        number += 1
        stem = f"{path.stem}-{number}"
    stems.add(stem)
    for end, dataset in ((_REPORT_END, results["sr"]), (_CAPTURE_END, results["sc"])):
        with atomic_path(folder / (stem + end)) as temporary:
            temporary.write_bytes(to_bytes(dataset))
    return None
