"""A station of `cxr pacs`: from an archive's images to results, once, repeatedly or as received."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import Terminal
from serving.answer import LoadedRun
from serving.pacs.dicomweb import Credentials, DicomWebArchive, is_loopback
from serving.pacs.dimse import Address, Inbox, StorePeer, Tls, listening
from serving.pacs.journal import Journal
from serving.pacs.patience import Patience, UnreachableError
from serving.pacs.worker import Tally, Worker, pull, take_received

_VARIABLES, _SEND_VARIABLES = "CXR_PACS", "CXR_PACS_SEND"
_LOOK_AGAIN = 5.0  # seconds until received images are tried again where the archive is away


@dataclass(frozen=True)
class Source:
    """Where images come from.

    Attributes:
        url: Of a DICOMweb service, or None.
        listen: Our own application entity, or None; one of the two is given.
        callers: AE titles that may send to it.
        modalities: Those that are taken.
        since: First study date, ``YYYYMMDD``.
        limit: Most images.
        watch: Seconds between two looks; None looks once.
        tls: Certificates for DICOM's own network, or None.
    """

    url: str | None
    listen: Address | None
    callers: list[str]
    modalities: list[str]
    since: str | None
    limit: int | None
    watch: float | None
    tls: Tls | None


def run_station(
    source: Source,
    send_to: str | None,
    title: str,
    load: Callable[[], list[LoadedRun]],
    journal: Path,
    terminal: Terminal,
    emit: Callable[[str], object],
    *,
    patience: float,
    dry_run: bool,
    strict: bool,
) -> Tally:
    """Fetch or receive images, answer for them and send the results, until the source ends.

    Args:
        source: Where images come from.
        send_to: Where results go, a URL or AE@HOST:PORT; None for the source's service.
        title: Our AE title.
        load: Loads what answers, once the addresses are known to be right.
        journal: File that says what is done already.
        terminal: What shows lines.
        emit: Called with a line of each answer.
        patience: How long an archive may stay away, seconds.
        dry_run: Whether to send nothing and note nothing.
        strict: Whether an image with a warning is skipped.

    Raises:
        InputError: An address is wrong, or an archive stays away.
    """
    waiting = Patience(patience, say=terminal.say)
    with warnings.catch_warnings(), _archives(source, send_to, title, waiting, terminal) as ends:
        warnings.simplefilter("ignore")  # of odd headers: they quote what is in them
        archive, sink = ends
        worker = Worker(
            load(),
            None if dry_run else sink,
            sink.shown,
            lambda job: Journal.open(journal, job, dry_run=dry_run),
            modalities=source.modalities,
            strict=strict,
            say=terminal.say,
            emit=emit,
        )
        with worker.journal:
            worker.journal.forget_failures()
            try:
                if archive is None:
                    _receive(source, worker, _images_folder(journal) / "received", terminal)
                else:
                    _look(source, archive, worker, _images_folder(journal) / "fetched", terminal)
            except UnreachableError as error:
                raise InputError(
                    f"{error}; nothing is lost: run the same command again when it is back"
                ) from None
            finally:
                terminal.say(worker.tally.line(sink.shown, dry_run=dry_run))
    return worker.tally


def _look(
    source: Source, archive: DicomWebArchive, worker: Worker, folder: Path, terminal: Terminal
) -> None:
    """Fetch and answer, once or again and again."""
    with _emptied(folder):
        while True:
            try:
                pull(archive, worker, folder, source.since, source.limit)
            except UnreachableError as error:
                if source.watch is None:
                    raise
                terminal.say(f"{error}; looking again in {source.watch:g} s")
            if source.watch is None:
                return
            time.sleep(source.watch)


def _receive(source: Source, worker: Worker, folder: Path, terminal: Terminal) -> None:
    """Receive and answer until the program is ended."""
    assert source.listen is not None  # noqa: S101 - one of the two sources is given
    inbox = Inbox(folder)
    with listening(source.listen, inbox, source.callers, source.tls):
        terminal.say(f"Receiving as {source.listen.shown}  (Ctrl-C ends it)")
        while True:
            try:
                take_received(inbox, worker)
            except UnreachableError as error:
                terminal.say(f"{error}; what was received is kept and tried again")
                time.sleep(_LOOK_AGAIN)
            else:
                inbox.arrived.wait(_LOOK_AGAIN)


@contextmanager
def _archives(
    source: Source, send_to: str | None, title: str, patience: Patience, terminal: Terminal
) -> Iterator[tuple[DicomWebArchive | None, DicomWebArchive | StorePeer]]:
    """Where images come from, None where they are received, and where results go."""
    archive = None
    if source.url is not None:
        credentials = Credentials.of(os.environ, _VARIABLES)
        archive = DicomWebArchive(source.url, credentials, patience)
    sink: DicomWebArchive | StorePeer
    if send_to is None and archive is not None:
        sink = archive
    elif "://" in str(send_to):
        same = source.url is not None and _origin(source.url) == _origin(str(send_to))
        variables = _VARIABLES if same else _SEND_VARIABLES
        sink = DicomWebArchive(str(send_to), Credentials.of(os.environ, variables), patience)
    else:
        sink = StorePeer(Address.parse(str(send_to), "--send-to"), title, patience, source.tls)
    _warn_of_open_networks(source, terminal, *dict.fromkeys([archive or sink, sink]))
    with closing(sink):
        if archive is None or archive is sink:
            yield archive, sink
        else:
            with closing(archive):
                yield archive, sink


def _warn_of_open_networks(
    source: Source, terminal: Terminal, *used: DicomWebArchive | StorePeer
) -> None:
    """Say what others on the way could read."""
    peers = [source.listen] if source.listen else []
    peers += [end.address for end in used if isinstance(end, StorePeer)]
    for peer in peers:
        if source.tls is None and not is_loopback(peer.host):
            terminal.say(
                f"{peer.shown}: WARNING: DICOM's own network neither encrypts nor asks for a "
                "password; give --tls-cert and --tls-ca, or keep it inside the hospital's network"
            )
    urls = [end.shown for end in used if isinstance(end, DicomWebArchive)]
    for url in urls:
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


def _images_folder(journal: Path) -> Path:
    """For images while they are worked on; they hold what their headers say."""
    return journal.with_name(f"{journal.name}-images")


@contextmanager
def _emptied(folder: Path) -> Iterator[None]:
    """A folder that is empty at the start, also after a kill, and gone at the end."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
