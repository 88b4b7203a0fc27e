"""`cxr pacs`: radiographs of a hospital's archive, answered for, and the results sent back."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.answers import (
    BackendOption,
    PolicyOption,
    PrecisionOption,
    open_runs,
    parse_runs,
    require_packages,
)
from scripts.options import DeviceOption

if TYPE_CHECKING:
    from serving.answer import LoadedRun
    from serving.pacs.dicomweb import DicomWebArchive
    from serving.pacs.dimse import Address, StorePeer, Tls
    from serving.pacs.patience import Patience
    from serving.pacs.worker import Worker

_NEEDED = ("dicomweb_client", "highdicom", "pynetdicom")
_TALKATIVE = ("dicomweb_client", "highdicom", "pydicom", "pynetdicom", "requests", "urllib3")
_VARIABLES, _SEND_VARIABLES = "CXR_PACS", "CXR_PACS_SEND"
_LOOK_AGAIN = 5.0  # seconds until received images are tried again where the archive is away


@dataclass(frozen=True)
class _Source:
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


def pacs(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|EXPORT ...",
            help="Folders that cxr train or cxr export made, each as PATH or NAME=PATH.",
        ),
    ],
    dicomweb: Annotated[
        str | None,
        typer.Option(metavar="URL", help="DICOMweb service of the archive to fetch from."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="AE:PORT",
            help="Receive by C-STORE instead, on this machine alone; AE@0.0.0.0:PORT for others.",
        ),
    ] = None,
    send_to: Annotated[
        str | None,
        typer.Option(
            metavar="URL|AE@HOST:PORT",
            help="Where results go: a DICOMweb service or a DICOM peer; to --dicomweb if left out.",
        ),
    ] = None,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="DATE", help="First study date, as 2026-01-31.")
    ] = None,
    modality: Annotated[
        list[str] | None,
        typer.Option(help="Modality that is taken; CR and DX if left out. May be repeated."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="Look once and end; so it is without --watch.")
    ] = False,
    watch: Annotated[
        float | None,
        typer.Option(min=1.0, metavar="SECONDS", help="Look again, so long after each look."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images to fetch a look.")] = None,
    journal: Annotated[
        Path, typer.Option(help="File that says what is done already, without identifiers.")
    ] = Path("cxr-pacs.sqlite"),
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Fetch and answer, but send nothing and note nothing."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Skip images that a warning speaks against.")
    ] = False,
    patience: Annotated[
        float,
        typer.Option(min=0.0, metavar="SECONDS", help="How long an archive may stay away."),
    ] = 60.0,
    ae_title: Annotated[
        str, typer.Option(help="Our AE title as a sender; with --listen that of --listen.")
    ] = "CXR-COMPARE",
    caller: Annotated[
        list[str] | None,
        typer.Option(metavar="AE", help="AE title that may send to --listen. May be repeated."),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="PEM file with our key and certificate: --listen and --send-to AE@HOST:PORT use "
            "TLS. Needs --tls-ca.",
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file of who signs the certificates of DICOM peers."),
    ] = None,
    policy: PolicyOption = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Answer for the chest radiographs of an archive, and send the results back.

    Each image gets a structured report (TID 1500) and a Secondary Capture with the overlay, in
    its own study, once: the journal says what is done, and the same command goes on after any
    end. Other images are skipped, each with its reason; so are these results. Credentials come
    from CXR_PACS_TOKEN, or CXR_PACS_USER and CXR_PACS_PASSWORD (CXR_PACS_SEND_... for another
    --send-to). Exit status 1: something failed; 2: nothing could be done.

    Example: cxr pacs out/chexnet --dicomweb https://pacs.example/dicom-web --since 2026-01-31

    Example: cxr pacs out/chexnet --listen CXR:11112 --send-to ORTHANC@127.0.0.1:4242
    """
    require_packages("pacs", _NEEDED)
    if (dicomweb is None) == (listen is None):
        raise InputError("pacs: give either --dicomweb URL or --listen AE:PORT")
    if once and watch is not None:
        raise InputError("pacs: --once and --watch exclude each other")
    if listen is not None:
        of_dicomweb = {"since": since, "once": once, "watch": watch, "limit": limit,
                       "dry-run": dry_run}  # fmt: skip
        if given := [option for option, value in of_dicomweb.items() if value]:
            raise InputError(f"pacs --listen: --{given[0]} is for --dicomweb; leave it out")
        if send_to is None:
            raise InputError("pacs --listen: say with --send-to where results go")
    elif caller:
        raise InputError("pacs --dicomweb: --caller is for --listen; leave it out")
    if (tls_cert is None) != (tls_ca is None):
        raise InputError("pacs: TLS needs both --tls-cert and --tls-ca")
    if tls_cert is not None and listen is None and (send_to is None or "://" in send_to):
        raise InputError(
            "pacs: --tls-cert is for --listen and --send-to AE@HOST:PORT; leave it out"
        )
    if dry_run and watch is not None:
        raise InputError("pacs --watch: --dry-run looks once; leave one out")
    given_runs = parse_runs(runs)
    for name in _TALKATIVE:  # they log UIDs, addresses and header values
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from serving.pacs.dimse import Address, Tls, require_title
    from serving.pacs.patience import Patience

    own = None
    if listen is not None:
        own = Address.parse(listen, "--listen", host="127.0.0.1")
    title = require_title(ae_title, "--ae-title") if own is None else own.title
    callers = [require_title(each, "--caller") for each in caller or []]
    tls = Tls(tls_cert, tls_ca) if tls_cert and tls_ca else None
    source = _Source(
        dicomweb, own, callers, _modalities(modality), _study_date(since), limit, watch, tls
    )
    waiting = Patience(patience, say=console.say)
    with warnings.catch_warnings(), _archives(source, send_to, title, waiting) as (archive, sink):
        warnings.simplefilter("ignore")  # of odd headers: they quote what is in them
        options = {
            "policy": policy, "backend": backend, "precision": precision, "device": device,
        }  # fmt: skip
        _run(
            source, archive, sink, open_runs(given_runs, options), journal,
            dry_run=dry_run, strict=strict,
        )  # fmt: skip


def _run(
    source: _Source,
    archive: DicomWebArchive | None,
    sink: DicomWebArchive | StorePeer,
    systems: list[LoadedRun],
    journal: Path,
    *,
    dry_run: bool,
    strict: bool,
) -> None:
    from serving.pacs.journal import Journal
    from serving.pacs.patience import UnreachableError
    from serving.pacs.worker import Worker

    worker = Worker(
        systems,
        None if dry_run else sink,
        sink.shown,
        lambda job: Journal.open(journal, job, dry_run=dry_run),
        modalities=source.modalities,
        strict=strict,
        say=console.say,
        emit=console.emit,
    )
    with worker.journal:
        worker.journal.forget_failures()
        try:
            if archive is None:
                _receive(source, worker, _images_folder(journal) / "received")
            else:
                _look(source, archive, worker, _images_folder(journal) / "fetched")
        except UnreachableError as error:
            raise InputError(
                f"{error}; nothing is lost: run the same command again when it is back"
            ) from None
        finally:
            console.say(worker.tally.line(sink.shown, dry_run=dry_run))
    if worker.tally.failed:
        raise SystemExit(1)


def _look(source: _Source, archive: DicomWebArchive, worker: Worker, folder: Path) -> None:
    """Fetch and answer, once or again and again."""
    from serving.pacs.patience import UnreachableError
    from serving.pacs.worker import pull

    with _emptied(folder):
        while True:
            try:
                pull(archive, worker, folder, source.since, source.limit)
            except UnreachableError as error:
                if source.watch is None:
                    raise
                console.say(f"{error}; looking again in {source.watch:g} s")
            if source.watch is None:
                return
            time.sleep(source.watch)


def _receive(source: _Source, worker: Worker, folder: Path) -> None:
    """Receive and answer until the program is ended."""
    from serving.pacs.dimse import Inbox, listening
    from serving.pacs.patience import UnreachableError
    from serving.pacs.worker import take_received

    assert source.listen is not None  # noqa: S101 - one of the two sources is given
    inbox = Inbox(folder)
    with listening(source.listen, inbox, source.callers, source.tls):
        console.say(f"Receiving as {source.listen.shown}  (Ctrl-C ends it)")
        while True:
            try:
                take_received(inbox, worker)
            except UnreachableError as error:
                console.say(f"{error}; what was received is kept and tried again")
                time.sleep(_LOOK_AGAIN)
            else:
                inbox.arrived.wait(_LOOK_AGAIN)


@contextmanager
def _archives(
    source: _Source, send_to: str | None, title: str, patience: Patience
) -> Iterator[tuple[DicomWebArchive | None, DicomWebArchive | StorePeer]]:
    """Where images come from, None where they are received, and where results go."""
    from serving.pacs.dicomweb import Credentials, DicomWebArchive
    from serving.pacs.dimse import Address, StorePeer

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
    _warn_of_open_networks(source, *dict.fromkeys([archive or sink, sink]))
    with closing(sink):
        if archive is None or archive is sink:
            yield archive, sink
        else:
            with closing(archive):
                yield archive, sink


def _warn_of_open_networks(source: _Source, *used: DicomWebArchive | StorePeer) -> None:
    """Say what others on the way could read."""
    from serving.pacs.dicomweb import DicomWebArchive, is_loopback
    from serving.pacs.dimse import StorePeer

    peers = [source.listen] if source.listen else []
    peers += [each.address for each in used if isinstance(each, StorePeer)]
    for peer in peers:
        if source.tls is None and not is_loopback(peer.host):
            console.say(
                f"{peer.shown}: WARNING: DICOM's own network neither encrypts nor asks for a "
                "password; give --tls-cert and --tls-ca, or keep it inside the hospital's network"
            )
    urls = [each.shown for each in used if isinstance(each, DicomWebArchive)]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
            console.say(
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


def _modalities(given: list[str] | None) -> list[str]:
    """The modalities, as code strings.

    Example:
        >>> _modalities(None), _modalities(["dx"])
        (['CR', 'DX'], ['DX'])
    """
    found = [each.strip().upper() for each in given or ["CR", "DX"]]
    if wrong := [each for each in found if not re.fullmatch(r"[A-Z0-9 _]{1,16}", each)]:
        raise InputError(f"--modality {wrong[0]}: write a modality such as CR or DX")
    return found


def _study_date(text: str | None) -> str | None:
    """A date as DICOM writes it.

    Example:
        >>> _study_date("2026-01-31"), _study_date("20260131")
        ('20260131', '20260131')
    """
    if text is None:
        return None
    try:
        return date.fromisoformat(text).strftime("%Y%m%d")
    except ValueError:
        raise InputError(f"--since {text}: write a date such as 2026-01-31") from None
