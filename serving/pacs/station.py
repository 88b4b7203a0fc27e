"""A station of `cxr pacs`: images of an archive are checked, answered for, and the results sent.

It looks once, repeatedly, or takes what it receives; the journal says what is done.
"""

from __future__ import annotations

import io
import os
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from pydicom.dataset import Dataset

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.dicom_header import header_facts, why_no_radiograph
from cxr_compare.data_prep.images.image import read_image
from cxr_compare.data_prep.store.answer_log import AnswerLog
from cxr_compare.data_prep.work.network_addresses import is_loopback
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.serving.answer import Answer
from cxr_compare.serving.dicom_objects.result_identity import SOFTWARE, Algorithm
from cxr_compare.serving.dicom_objects.results import dicom_results
from cxr_compare.serving.dicom_objects.source_header import Source, read_source
from cxr_compare.serving.image_files import note_answers
from cxr_compare.serving.pacs.dicomweb import ArchivedImage, Credentials, DicomWebArchive
from cxr_compare.serving.pacs.dimse import Address, Inbox, StorePeer, Tls, listening, require_title
from cxr_compare.serving.pacs.journal import Journal, digest, job_id, writing
from cxr_compare.serving.pacs.patience import Patience, RefusedError, UnreachableError
from cxr_compare.serving.run import Run, answers_by_image

_VARIABLES, _SEND_VARIABLES = "CXR_PACS", "CXR_PACS_SEND"
_LOOK_AGAIN = 5.0  # seconds until received images are tried again where the archive is away
_LISTED_AGAIN = 100  # studies without a known change that a later look lists, at most


@dataclass(frozen=True)
class StationSettings:
    """Where images come from, which are taken, and where results go."""

    url: str | None  # DICOMweb service that images are fetched from
    listen: str | None  # AE:PORT that images are sent to; one of the two is given
    callers: list[str]  # AE titles that may send to it
    send_to: str | None  # where results go, a URL or AE@HOST:PORT; None: the service at `url`
    title: str  # our AE title as a sender, where there is no `listen`
    tls_cert: Path | None  # PEM file with our key and certificate
    tls_ca: Path | None  # PEM file of who signs the certificates of DICOM peers
    modalities: list[str]  # those that are answered for
    since: str | None  # first study date, ``YYYYMMDD``
    limit: int | None  # most images a look
    watch: float | None  # seconds between two looks; None looks once
    journal: Path  # file that says what is done already
    patience: float  # seconds that an archive may stay away
    dry_run: bool  # whether to send nothing and note nothing
    strict: bool  # whether an image with a warning is skipped
    log: AnswerLog | None = None  # for the monitor; what is skipped by its header is not in it

    @property
    def own(self) -> Address | None:
        """Our own application entity where images are received."""
        if self.listen is None:
            return None
        return Address.parse(self.listen, "--listen", host="127.0.0.1")

    @property
    def tls(self) -> Tls | None:
        """TLS for DICOM's own network."""
        return Tls(self.tls_cert, self.tls_ca) if self.tls_cert and self.tls_ca else None


@dataclass(frozen=True)
class _Tally:
    """Images, results and studies by what was done with them since the program began."""

    answered: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    done_before: set[str] = field(default_factory=set)  # images that an earlier run dealt with
    unchanged: set[str] = field(default_factory=set)  # studies in which nothing is left to do
    skipped: dict[str, str] = field(default_factory=dict)  # images and series, with the reason
    failed: set[str] = field(default_factory=set)  # images without an answer, or one refused

    def line(self, destination: str, *, dry_run: bool = False) -> str:
        """The summary."""
        results = counted(len(self.results), "result")
        parts = [
            f"{counted(len(self.answered), 'image')} answered",
            f"{results} made, none sent" if dry_run else f"{results} sent to {destination}",
        ]
        if self.done_before:
            parts.append(f"{len(self.done_before):,} done before")
        if self.unchanged:
            parts.append(f"{counted(len(self.unchanged), 'study')} unchanged")
        if self.skipped:
            reasons = Counter(self.skipped.values()).most_common()
            words = ", ".join(f"{count:,} {reason}" for reason, count in reasons)
            parts.append(f"{len(self.skipped):,} skipped ({words})")
        if self.failed:
            parts.append(f"{len(self.failed):,} failed, see above")
        return "; ".join(parts)


def run_station(
    settings: StationSettings,
    load: Callable[[], list[Run]],
    terminal: Progress,
    emit: Callable[[str], object],
) -> _Tally:
    """Fetch or receive images, answer for them and send the results, until the source ends.

    Args:
        settings: Where images come from, and where results go.
        load: Loads what answers, once the addresses are known to be right.
        terminal: What shows lines.
        emit: Called with a line of each answer.

    Raises:
        InputError: An address is wrong, or an archive stays away.
    """
    with warnings.catch_warnings(), ExitStack() as connections:
        archive, sink = _archives(settings, terminal, connections)
        warnings.simplefilter("ignore")  # of odd headers: they quote what is in them
        try:
            _try_addresses(settings, archive, sink, terminal)
            worker = _Worker(settings, load(), sink, terminal.say, emit)
            with worker.journal:
                try:
                    worker.journal.forget_failures()
                    if archive is None:
                        _receive(settings, worker, terminal)
                    else:
                        _look(settings, archive, worker, terminal)
                finally:
                    terminal.say(worker.tally.line(sink.shown, dry_run=settings.dry_run))
        except UnreachableError as error:
            raise InputError(
                f"{error}; nothing is lost: the same command goes on from here",
                full_disk=error.full_disk,
            ) from None
    return worker.tally


class _Worker:
    """Answers for DICOM files, sends the results to an archive, and notes and counts each image.

    `say` shows a line to the person; `emit` writes a line of a result.
    """

    def __init__(
        self,
        settings: StationSettings,
        systems: Sequence[Run],
        sink: DicomWebArchive | StorePeer,
        say: Callable[[str], object],
        emit: Callable[[str], object],
    ) -> None:
        self._settings, self._systems, self._sink = settings, systems, sink
        self._say, self._emit = say, emit
        self._algorithms = [Algorithm.from_run(run) for run in systems]
        job = job_id([asdict(system) for system in self._algorithms], sink.shown)
        self.journal = Journal.open(settings.journal, job, dry_run=settings.dry_run)
        self._search = (" ".join(sorted(settings.modalities)), settings.since or "")
        self.tally = _Tally()
        self._counts: dict[str, int] = {}  # of settled studies, the longest ago listed first
        self._batch_size = min(run.model.batch_size for run in systems)
        self._note = partial(note_answers, settings.log, systems)

    def pull(self, archive: DicomWebArchive, folder: Path) -> None:
        """Fetch what is new in an archive, study by study, and answer for it."""
        self._work(islice(self._fetched(archive, folder), self._settings.limit))

    def take_received(self, inbox: Inbox) -> None:
        """Answer for the images that were received until now, the oldest first.

        What failed stays in the inbox, to be tried by another run.
        """
        inbox.arrived.clear()

        def waiting() -> Iterator[tuple[str, Path]]:
            for path in inbox.waiting():
                if not self._is_done(path.stem):
                    yield path.stem, path
                elif path.stem not in self.tally.failed:
                    path.unlink(missing_ok=True)

        self._work(waiting(), keep_failed=True)

    def _fetched(self, archive: DicomWebArchive, folder: Path) -> Iterator[tuple[str, Path]]:
        for study, count in self._to_list(archive).items():
            listed = archive.images(study, self._settings.modalities)
            items = {digest(item.uid): item for item in listed}
            has_changed = self._holds(digest(study), items.keys())
            new: dict[str, ArchivedImage] = {}
            for image, item in items.items():
                if isinstance(item, ArchivedImage):
                    if not self._is_done(image):
                        new[image] = item
                elif has_changed:
                    self.tally.skipped[image] = item.reason
            self._counts.pop(study, None)
            if not new and count is not None:
                self._counts[study] = count
            if not new and not has_changed:
                self.tally.unchanged.add(digest(study))
            for image, item in new.items():
                if path := self._fetch(archive, item, folder / f"{image}.dcm"):
                    yield image, path

    def _to_list(self, archive: DicomWebArchive) -> dict[str, int | None]:
        """The studies whose images a look lists: all; later what has another count, and some."""
        modalities, since = self._settings.modalities, self._settings.since
        studies = archive.studies(modalities, since)
        before = self.journal.listed(*self._search)
        if before.difference(map(digest, studies)):
            studies |= archive.studies(modalities, since)  # one may have moved between two pages
        for study in before.difference(map(digest, studies)):
            self._holds(study, set())
        same = [study for study, count in self._counts.items() if studies.get(study) == count]
        for study in same[_LISTED_AGAIN:]:
            del studies[study]
        return studies

    def _holds(self, study: str, images: Set[str]) -> bool:
        """Note what a study holds, name what it held and was answered for; whether that changed."""
        held = self.journal.held(study, self._search[0])
        for image in held - images:
            if self.journal.state(image) in ("answered", "sent"):
                self._say(f"{_called(image)}: the archive no longer lists it; its answer stands")
        if held != images:
            self.journal.hold(study, *self._search, images)
        return held != images

    def _fetch(self, archive: DicomWebArchive, item: ArchivedImage, path: Path) -> Path | None:
        """Fetch one image into a file; None where that fails."""
        try:
            dataset = archive.fetch(item)
        except RefusedError as error:
            self._fail(path.stem, str(error))
            return None
        content = io.BytesIO()
        try:
            dataset.save_as(content, enforce_file_format=True)
        except Exception as error:  # noqa: BLE001 - pydicom raises all kinds on broken data sets
            self._fail(path.stem, f"its data set is damaged ({type(error).__name__})")
            return None
        with writing(path.parent), content.getbuffer() as view:  # an error would hold it open
            path.write_bytes(view)
        return path

    def _is_done(self, image: str) -> bool:
        """Whether an image needs nothing any more; each is counted once."""
        if self.journal.is_result(image):
            return True
        is_done = self.journal.state(image) in ("sent", "skipped", "failed")
        now = (self.tally.answered, self.tally.skipped, self.tally.failed)
        if is_done and not any(image in images for images in now):
            self.tally.done_before.add(image)
        return is_done

    def _skip(self, image: str, reason: str) -> None:
        """An image is none to answer for."""
        self.journal.enter(image, "skipped", reason)
        self.tally.skipped[image] = reason

    def _fail(self, image: str, reason: str) -> None:
        """An image gets no answer, or its results were refused."""
        self.journal.enter(image, "failed", reason)
        self.tally.failed.add(image)
        self._say(f"{_called(image)}: {reason}")

    def _work(self, files: Iterator[tuple[str, Path]], *, keep_failed: bool = False) -> None:
        """Answer for files, each with the digest of its image's UID, and remove what is done."""
        while batch := list(islice(files, self._batch_size)):
            for image, _ in batch:
                self.journal.enter(image, "fetched")
            self._answer(batch)
            for image, path in batch:
                if not (keep_failed and image in self.tally.failed):
                    path.unlink(missing_ok=True)

    def _answer(self, batch: Sequence[tuple[str, Path]]) -> None:
        readable: list[tuple[str, Path, Dataset, DecodedImage]] = []
        for image, path in batch:
            try:
                header = read_source(path)
                if reason := self._why_not(header, path):
                    self._skip(image, reason)
                else:
                    readable.append((image, path, header, read_image(path)))
            except InputError as error:
                self._note(image, None, None, None)
                self._fail(image, _without_path(error, path))
        if not readable:
            return
        images = [(str(path), decoded) for _, path, _, decoded in readable]
        start = time.monotonic()
        by_image = answers_by_image(self._systems, images)
        seconds = (time.monotonic() - start) / len(images)
        for (image, path, header, decoded), answers in zip(readable, by_image, strict=True):
            self._note(image, decoded, answers, seconds)
            if isinstance(answers, InputError):
                self._fail(image, _without_path(answers, path))
            else:
                named = [replace(answer, image=_called(image)) for answer in answers]
                self._deliver(image, header, named)

    def _deliver(self, image: str, header: Dataset, answers: Sequence[Answer]) -> None:
        """Make and send the results of one image."""
        warned = Answer.joint_warnings(answers)
        if warned and self._settings.strict:
            self._skip(image, warned[0])
            return
        try:
            objects = dicom_results(Source.from_header(header), answers, self._algorithms)
        except InputError as error:
            self._fail(image, str(error))
            return
        results = list(objects.values())
        uids = [digest(str(result.SOPInstanceUID)) for result in results]
        self.journal.answer(image, uids)
        if not self._settings.dry_run:
            try:
                self._sink.store(results)
            except RefusedError as error:
                self._fail(image, str(error))
                return
            self.journal.enter(image, "sent")
        self.tally.answered.add(image)
        self.tally.results.update(uids)
        for text in warned:
            self._emit(f"{_called(image)}  WARNING: {text}")
        for answer in answers:
            self._emit(str(answer))

    def _why_not(self, header: Dataset, path: Path) -> str | None:
        """Why a file is none to answer for; nothing of its header is quoted but its modality."""
        if str(header.get("Manufacturer", "")).strip() == SOFTWARE:
            return f"a result of {SOFTWARE}"
        modality = header_facts(header)["modality"]
        if modality is not None and modality not in self._settings.modalities:
            return f"its modality is {modality}"
        return why_no_radiograph(path)[0]


def _called(image: str) -> str:
    return f"image {image[:12]}"


def _without_path(error: InputError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _look(
    settings: StationSettings, archive: DicomWebArchive, worker: _Worker, terminal: Progress
) -> None:
    """Fetch and answer, once or again and again."""
    while True:
        try:
            with _emptied(_images_folder(settings) / "fetched") as folder:
                worker.pull(archive, folder)
        except UnreachableError as error:
            if settings.watch is None:
                raise
            terminal.say(f"{error}; looking again in {settings.watch:g} s")
        if settings.watch is None:
            return
        time.sleep(settings.watch)


def _receive(settings: StationSettings, worker: _Worker, terminal: Progress) -> None:
    """Receive and answer until the program is ended."""
    own = settings.own
    assert own is not None  # noqa: S101 - one of the two sources is given
    inbox = Inbox(_images_folder(settings) / "received")
    with listening(own, inbox, settings.callers, settings.tls):
        terminal.say(f"Receiving as {own.shown}  (Ctrl-C ends it)")
        said = ""
        while True:
            try:
                worker.take_received(inbox)
            except UnreachableError as error:
                if said != (said := str(error)):
                    terminal.say(f"{error}; what was received is kept and tried again")
                time.sleep(_LOOK_AGAIN)
            else:
                said = ""
                inbox.arrived.wait(_LOOK_AGAIN)


def _archives(
    settings: StationSettings, terminal: Progress, connections: ExitStack
) -> tuple[DicomWebArchive | None, DicomWebArchive | StorePeer]:
    """Where images come from, None where they are received, and where results go."""
    url, send_to, own = settings.url, settings.send_to, settings.own
    title = require_title(settings.title, "pacs.ae_title") if own is None else own.title
    for caller in settings.callers:
        require_title(caller, "pacs.callers")
    patience = Patience(settings.patience, say=terminal.say)

    def open_archive(url: str, variables: str) -> DicomWebArchive:
        credentials = Credentials.of(os.environ, variables)
        return connections.enter_context(closing(DicomWebArchive(url, credentials, patience)))

    archive = None if url is None else open_archive(url, _VARIABLES)
    if send_to is None and archive is not None:
        sink: DicomWebArchive | StorePeer = archive
    elif "://" in str(send_to):
        same = url is not None and _origin(url) == _origin(str(send_to))
        sink = open_archive(str(send_to), _VARIABLES if same else _SEND_VARIABLES)
    else:
        address = Address.parse(str(send_to), "--send-to")
        sink = StorePeer(address, title, patience, settings.tls)
    _warn_of_open_networks(settings, terminal, *dict.fromkeys([archive or sink, sink]))
    return archive, sink


def _try_addresses(
    settings: StationSettings,
    archive: DicomWebArchive | None,
    sink: DicomWebArchive | StorePeer,
    terminal: Progress,
) -> None:
    """Have each address answer: a wrong one is said before models are loaded."""
    if archive is not None:
        try:
            archive.echo(settings.modalities[0], settings.since, waits=settings.watch is None)
        except UnreachableError:
            if settings.watch is None:
                raise  # else the look says it
    if sink is not archive:
        try:
            sink.echo()
        except InputError as error:
            terminal.say(f"{error}; results are sent when it answers, and nothing is lost")


def _warn_of_open_networks(
    settings: StationSettings, terminal: Progress, *ends: DicomWebArchive | StorePeer
) -> None:
    """Say what others on the way could read."""
    peers = [own] if (own := settings.own) else []
    peers += [end.address for end in ends if isinstance(end, StorePeer)]
    for peer in peers:
        if settings.tls is None and not is_loopback(peer.host):
            terminal.say(
                f"{peer.shown}: WARNING: DICOM's own network neither encrypts nor asks for a "
                "password; give --tls-cert and --tls-ca, or keep it inside the hospital's network"
            )
    for url in (end.shown for end in ends if isinstance(end, DicomWebArchive)):
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
            terminal.say(
                f"{url}: WARNING: http is not encrypted, so that others on the way can read images "
                "and credentials; use https"
            )


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or usual


def _images_folder(settings: StationSettings) -> Path:
    """For images while they are worked on; they hold what their headers say."""
    return settings.journal.with_name(f"{settings.journal.name}-images")


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    """A folder that is empty at the start, also after a kill, and gone at the end."""
    with writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
