"""The answers of `cxr predict` for images: found, printed, drawn and written one by one.

Nothing heavy is imported before the paths are known to be right and one image could be read.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.store.folder_kinds import folders_within, kind_begun, kind_of, require_kind
from data_prep.work.addresses import shown
from data_prep.work.local_copies import open_image
from scripts import console
from scripts.options import split_name

if TYPE_CHECKING:
    from data_prep.store.decode import LooseImage
    from serving.answer import Answer, LoadedRun
    from serving.dicom_objects.instance import Algorithm

# Options of the verbs that answer image by image: predict IMAGE, serve and pacs.
PolicyOption = Annotated[
    str | None,
    typer.Option(help="Which of the run's operating points decides; by default max_f1."),
]
BackendOption = Annotated[
    Literal["torch", "onnx", "openvino", "auto"] | None,
    typer.Option(help="What computes, as in cxr predict; torch with a run if left out."),
]
PrecisionOption = Annotated[
    Literal["fp32", "bf16", "int8"] | None,
    typer.Option(help="What it computes in, as in cxr predict."),
]
OVERLAYS = "predicted"
_WORTH_WORKERS = 16  # files: starting a process costs as much as decoding a few
_OVERLAY = "-overlay.png"  # end of each name
_REPORT, _CAPTURE = "-sr.dcm", "-sc.dcm"


@dataclass(frozen=True)
class AnswerOutput:
    """Where answers go.

    Attributes:
        overlays: Folder of the PNG files; None draws none.
        csv: Table to write, or None.
        dicom: Folder of a structured report and an overlay for each DICOM image, or None.
        as_json: Whether stdout gets JSON instead of lines.
        show: Whether to open what was drawn.
    """

    overlays: Path | None
    csv: Path | None = None
    dicom: Path | None = None
    as_json: bool = False
    show: bool = False


def show_answers(
    paths: Sequence[str],
    output: AnswerOutput,
    options: dict[str, Any],
    batch_size: int | None,
    *,
    strict: bool,
) -> None:
    """Answer for images, file by file; memory does not grow with their number.

    Args:
        paths: Runs, as PATH or NAME=PATH, and images or folders of images.
        output: Where answers go.
        options: Of `LoadedRun.open`; a ``name`` is for one run.
        batch_size: Images at a time; None for what suits the models.
        strict: Whether an image with a warning gets no answer.

    Raises:
        InputError: A path is wrong, or no file could be answered.
    """
    runs, sources = _sort_paths(paths)
    if output.csv is not None and output.csv.is_dir():
        raise InputError(f"--csv {output.csv}: is a folder; name a file in it")
    if options["name"] is not None:
        if len(runs) > 1:
            raise InputError("predict --name: is for one run; give several as NAME=RUN")
        runs = [(options["name"], runs[0][1])]
    if output.dicom is not None and find_spec("highdicom") is None:
        raise InputError("--dicom: needs highdicom; pip install 'cxr-compare[dicom]'")
    from data_prep.store.decode import find_files, read_loose
    from data_prep.work.pool import cpu_count, write_behind

    files = [path for path in find_files(sources) if not _is_output(path, output)]
    if not files:
        raise InputError(f"{paths[-1]}: holds the output of an earlier call alone; give images")
    left_out: list[LooseImage] = []
    first: LooseImage | None = None
    for file in read_loose(files):  # until one could be read: models are not loaded for nothing
        if file.problem is None:
            first = file
            break
        left_out.append(file)
    if first is None:
        reason = str(left_out[0].problem)
        many = f"none of {len(files)} files is an image; the first: "
        raise InputError(reason if len(files) == 1 else many + reason)
    loaded = open_runs(runs, options)
    others = files[len(left_out) + 1 :]
    # Processes: they decode while the networks compute.
    workers = min(cpu_count(), len(others)) if len(others) >= _WORTH_WORKERS else 0
    stream = read_loose(others, workers=workers)
    if batch_size is None:
        batch_size = min(run.model.batch_size for run in loaded)
    objects = None if output.dicom is None else _DicomWriter.begin(output.dicom, loaded)
    with _Writer(output, objects) as writer:
        for file in left_out:
            writer.leave_out(file.path, str(file.problem))
        batches = _batches(chain([first], stream), batch_size)
        answered = ((batch, _answer(loaded, batch)) for batch in batches)
        write_behind(lambda batch: _write_batch(*batch, writer, strict=strict), answered)
    if not writer.answered:
        raise InputError(f"none of {counted(len(files), 'file')} was answered; see above")
    if writer.left_out:
        console.say(f"{counted(writer.left_out, 'file')} left out of {len(files)}, see above")
    if writer.left_out or (objects is not None and objects.refused):
        raise SystemExit(1)


def _is_output(path: Path, output: AnswerOutput) -> bool:
    """Whether a file found in a folder was written by an earlier call."""
    written = ((output.overlays, (_OVERLAY,)), (output.dicom, (_REPORT, _CAPTURE)))
    return any(
        folder is not None
        and path.parent.resolve() == folder.resolve()
        and path.name.endswith(ends)
        for folder, ends in written
    )


def _sort_paths(paths: Sequence[str]) -> tuple[list[tuple[str | None, Path]], list[Path]]:
    """Tell runs, each with the name given to it, from images."""
    runs: list[tuple[str | None, Path]] = []
    sources = []
    for text in paths:
        name, path = _named_path(text)
        if _is_run(path):
            runs.append((name, path))
        elif name is not None:
            raise InputError(f"{text}: {path} is not a run; NAME=PATH names a folder of cxr train")
        else:
            sources.append(path)
    if not runs:
        raise InputError(
            "predict: give at least one run, a folder that cxr train made, or an export of one"
        )
    if not sources:
        raise InputError("predict: give images or folders of images behind the run, or --data")
    return runs, sources


def parse_runs(texts: Sequence[str]) -> list[tuple[str | None, Path]]:
    """Read PATH or NAME=PATH of verbs that take runs and exports alone.

    Raises:
        InputError: A path is neither.
    """
    runs = [_named_path(text) for text in texts]
    for _, path in runs:
        if not _is_run(path):
            raise InputError(
                f"{path}: is neither a run of cxr train nor an export of one; give such a folder"
            )
    return runs


def _named_path(text: str) -> tuple[str | None, Path]:
    """``PATH`` or ``NAME=PATH`` of what must be there."""
    name, path = split_name(text)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return name, path


def require_packages(verb: str, modules: Sequence[str]) -> None:
    """Refuse a verb whose pip extra, which has its name, is not installed."""
    for name in modules:
        if find_spec(name) is None:
            raise InputError(
                f"{verb}: {name.replace('_', '-')} is not installed; pip install "
                f"'cxr-compare[{verb}]'"
            )


def _is_run(path: Path) -> bool:
    """Whether a path is a run, which must then be complete; refuses other folders of cxr."""
    if not path.is_dir():
        return False
    kind, begun = kind_of(path), kind_begun(path)
    if kind is not None and kind.name == "export":
        return True
    if "run" in (folder.name for folder in (kind, begun) if folder):
        require_kind(path, "run")
        return True
    if kind is not None and kind.name == "data set":
        raise InputError(f"{path}: is a data set; give it as --data, or give its images")
    if kind is not None and kind.name == "predictions":
        raise InputError(f"{path}: holds predictions; give the run that made them")
    if kind is None and "run" in folders_within(path):
        require_kind(path, "run")
    return False


def open_runs(runs: Sequence[tuple[str | None, Path]], options: dict[str, Any]) -> list[LoadedRun]:
    """Load the runs; those of one name are told apart by their folders."""
    from dataclasses import replace

    from scripts.machines.runtime import choose_device, runs_on_gpu, tune_cpu
    from serving.backends import choose_backend

    backend, precision, device = (options[key] for key in ("backend", "precision", "device"))
    gpu = backend == "auto" and runs_on_gpu(device)
    engines = [choose_backend(path, backend, precision, gpu=gpu) for _, path in runs]
    if backend == "auto":
        for words in dict.fromkeys(engine.words for engine in engines):
            console.say(words)
    if any(engine.backend == "torch" for engine in engines):
        tune_cpu()
        device = choose_device(device)
    from serving.answer import LoadedRun

    loaded = [
        LoadedRun.open(
            engine.folder,
            name=name,
            policy=options["policy"],
            device=device,
            precision="bf16" if engine.precision == "bf16" else "fp32",
        )
        for engine, (name, _) in zip(engines, runs, strict=True)
    ]
    names = [run.name for run in loaded]
    loaded = [
        replace(run, name=run.folder.name) if names.count(run.name) > 1 and not name else run
        for run, (name, _) in zip(loaded, runs, strict=True)
    ]
    names = [run.name for run in loaded]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two runs are called '{repeated[0]}'; give each its own: NAME=RUN")
    for run in loaded:
        if run.undecided_because:
            console.say(f"{run.name}: undecided: {run.undecided_because}")
        if run.guard is None:
            console.say(
                f"{run.name}: has no guard, which tells what is no chest X-ray; the same cxr train "
                "command adds it, where there are enough training images"
            )
    return loaded


def _batches(files: Iterator[LooseImage], size: int) -> Iterator[list[LooseImage]]:
    # The first alone: its answer need not wait until others are read.
    yield list(islice(files, 1))
    while some := list(islice(files, size)):
        yield some


_OfImage = tuple["Answer | InputError", ...]


def _answer(runs: Sequence[LoadedRun], files: Sequence[LooseImage]) -> list[_OfImage]:
    """What each run says of each file that could be read."""
    images = [(str(file.path), file.image) for file in files if file.image is not None]
    by_run = [run.answer(images) for run in runs] if images else []
    return list(zip(*by_run, strict=True))


def _write_batch(
    files: Sequence[LooseImage], answered: Sequence[_OfImage], writer: _Writer, *, strict: bool
) -> None:
    of_image = iter(answered)
    for file in files:
        if file.image is None:
            writer.leave_out(file.path, str(file.problem))
            continue
        outcomes = next(of_image)
        answers = [answer for answer in outcomes if not isinstance(answer, InputError)]
        failed = [error for error in outcomes if isinstance(error, InputError)]
        warned = [text for answer in answers for text in answer.warnings]
        if failed:
            writer.leave_out(file.path, str(failed[0]))
        elif strict and warned:
            writer.leave_out(file.path, f"{file.path}: {warned[0]}; refused by --strict")
        else:
            writer.write(answers)


@dataclass
class _DicomWriter:
    """Writes what was answered for DICOM images as DICOM objects into a folder."""

    folder: Path
    algorithms: list[Algorithm]
    written: int = 0  # images so far
    refused: int = 0  # DICOM images so far that no object can refer to
    others: int = 0  # images so far that are no DICOM
    _stems: set[str] = field(default_factory=set)

    @classmethod
    def begin(cls, folder: Path, runs: Sequence[LoadedRun]) -> _DicomWriter:
        from data_prep.contracts.folders import make_folder
        from serving.dicom_objects.instance import Algorithm

        make_folder(folder)
        return cls(folder, [Algorithm.of(run) for run in runs])

    def write(self, answers: Sequence[Answer]) -> None:
        """One image, answered by each system."""
        from data_prep.images.dicom_header import starts_like_dicom
        from serving.dicom_objects.instance import Source, read_source, to_bytes
        from serving.dicom_objects.secondary_capture import overlay_capture
        from serving.dicom_objects.structured_report import structured_report

        path = Path(answers[0].image)
        try:
            with open_image(path) as local:
                with local.open("rb") as file:
                    if not starts_like_dicom(file.read(132)):
                        self.others += 1
                        return
                source = Source.of(read_source(local))
            report = to_bytes(structured_report(source, answers, self.algorithms))
            capture = to_bytes(overlay_capture(source, answers, self.algorithms))
        except InputError as error:
            console.say(f"no DICOM objects of {path}: {error}")
            self.refused += 1
            return
        stem = _free_stem(path.stem, self._stems)
        (self.folder / (stem + _REPORT)).write_bytes(report)
        (self.folder / (stem + _CAPTURE)).write_bytes(capture)
        self.written += 1

    def close(self) -> None:
        """Say what was written."""
        without = [f"{self.refused} refused, see above"] if self.refused else []
        without += [f"{self.others} no DICOM"] if self.others else []
        note = f" ({'; '.join(without)})" if without else ""
        console.say(f"DICOM objects of {counted(self.written, 'image')}: {self.folder}{note}")


def _free_stem(stem: str, taken: set[str]) -> str:
    """The start of a name that no other image of this command has."""
    free, number = stem, 1
    while free in taken:
        number += 1
        free = f"{stem}-{number}"
    taken.add(free)
    return free


@dataclass
class _Writer:
    """Prints, draws and writes answers as they come."""

    output: AnswerOutput
    objects: _DicomWriter | None = None
    answered: int = 0  # images so far
    left_out: int = 0  # files so far
    _stems: set[str] = field(default_factory=set)
    _last: Path | None = None
    _table: IO[str] | None = None
    _rows: Any = None
    _is_first: bool = True

    def __enter__(self) -> _Writer:

        from data_prep.contracts.folders import make_folder
        from serving.answer import ANSWER_COLUMNS

        if self.output.overlays is not None:
            make_folder(self.output.overlays)
        if self.output.csv is not None:
            make_folder(self.output.csv.parent)
            self._table = _unfinished(self.output.csv).open("w", newline="", encoding="utf-8")
            self._rows = csv.DictWriter(self._table, (*ANSWER_COLUMNS, "problem"))
            self._rows.writeheader()
        return self

    def write(self, answers: Sequence[Answer]) -> None:
        """One image, answered by each system."""
        self._print(answers)
        if self._rows is not None:
            from serving.answer import answer_row

            for answer in answers:
                self._rows.writerow(answer_row({**answer.to_dict(), "image": shown(answer.image)}))
        if self.output.overlays is not None:
            self._draw(answers, self.output.overlays)
        if self.objects is not None:
            self.objects.write(answers)
        self.answered += 1

    def leave_out(self, path: Path, problem: str) -> None:
        """One file without an answer."""
        console.say(f"left out: {problem}")
        self._emit([{"image": str(path), "problem": problem}])
        if self._rows is not None:
            self._rows.writerow({"image": shown(str(path)), "problem": shown(problem)})
        self.left_out += 1

    def _print(self, answers: Sequence[Answer]) -> None:
        """What stands beside the answers, then a line each; or JSON alone on stdout."""
        remarks = [("WARNING", text) for answer in answers for text in answer.warnings]
        remarks += [("NOTE", text) for answer in answers for text in answer.notes]
        for kind, text in dict.fromkeys(remarks):
            line = f"{answers[0].image}  {kind}: {text}"
            if self.output.as_json:
                console.say(line)
            else:
                sys.stdout.write(shown(line) + "\n")
        if self.output.as_json:
            self._emit([answer.to_dict() for answer in answers])
            return
        sys.stdout.writelines(shown(str(answer)) + "\n" for answer in answers)
        sys.stdout.flush()

    def _emit(self, entries: Sequence[dict[str, Any]]) -> None:
        """Append to the JSON list on stdout, where that is wanted."""
        if not self.output.as_json:
            return
        for entry in entries:
            sys.stdout.write("[\n" if self._is_first else ",\n")
            self._is_first = False
            sys.stdout.write(shown(json.dumps(entry, ensure_ascii=False)))

    def _draw(self, answers: Sequence[Answer], folder: Path) -> None:
        from evaluation.overlays.draw import to_png
        from serving.answer import render_answers

        path = folder / (_free_stem(Path(answers[0].image).stem, self._stems) + _OVERLAY)
        to_png(render_answers(answers), path)
        self._last = path

    def __exit__(self, *error: object) -> None:
        if self.output.as_json:
            sys.stdout.write("[]\n" if self._is_first else "\n]\n")
        self._close_table(complete=error[0] is None)
        if error[0] is None and self.objects is not None:
            self.objects.close()
        if error[0] is not None or self._last is None:
            return
        where = self._last if self.answered == 1 else self.output.overlays
        console.say(f"Overlay{'' if self.answered == 1 else 's'}: {where}")
        if self.output.show and where is not None:
            _open_viewer(where)

    def _close_table(self, *, complete: bool) -> None:
        """Give the table its name; one that was interrupted keeps its rows under another."""
        if self._table is None or self.output.csv is None:
            return
        self._table.close()
        written = _unfinished(self.output.csv)
        if complete:
            written.replace(self.output.csv)
            written = self.output.csv
        console.say(f"Table{'' if complete else ' so far'}: {written}")


def _unfinished(table: Path) -> Path:
    return table.with_name(f"{table.name}.unfinished")


def _open_viewer(path: Path) -> None:
    """Show a file or folder by the system's own viewer, without waiting for it."""
    viewer = shutil.which("open" if sys.platform == "darwin" else "xdg-open")
    screen = sys.platform == "darwin" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if viewer is None or not screen:
        console.say(f"--open: no viewer here; open {path} yourself")
        return
    quiet = subprocess.DEVNULL
    subprocess.Popen([viewer, str(path)], stdout=quiet, stderr=quiet)  # noqa: S603  our own file
