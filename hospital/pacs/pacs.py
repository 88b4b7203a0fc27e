"""`cxr pacs`: read radiographs from a hospital's archive, and send the answers back to it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated

from cxr_compare.data_prep.contracts.errors import InputError, require_packages
from cxr_compare.hospital.answers.logged_answers import Log, opened_log
from cxr_compare.scripts import console
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    Backend,
    Device,
    Outcome,
    Policy,
    Precision,
    Runs,
    as_path,
    command,
    open_runs,
    parse_runs,
    read_paths,
    require_backends,
    say_cautions,
)

_NEEDED = ("dicomweb_client", "highdicom", "pynetdicom")
_MODALITY = re.compile(r"[A-Z0-9 _]{1,16}")
_TALKATIVE = ("dicomweb_client", "highdicom", "pydicom", "pynetdicom", "requests", "urllib3")


@command
def pacs(
    runs: Runs,
    *,
    dicomweb: Annotated[str | None, Argument(metavar="URL")] = None,
    listen: Annotated[str | None, Argument(metavar="AE:PORT")] = None,
    send_to: Annotated[str | None, Argument(metavar="URL|AE@HOST:PORT")] = None,
    since: Annotated[str | None, Argument(metavar="DATE")] = None,
    watch: Annotated[float | None, Argument(minimum=1.0, metavar="SECONDS")] = None,
    journal: AnyPath = Path("cxr-pacs.sqlite"),
    log: Log = None,
    dry_run: bool = False,
    modality: Annotated[list[str] | None, Argument(metavar="CODE")] = None,
    limit: Annotated[int | None, Argument(minimum=1)] = None,
    patience: Annotated[float, Argument(minimum=0.0, metavar="SECONDS")] = 60.0,
    ae_title: Annotated[str, Argument(metavar="TITLE")] = "CXR-COMPARE",
    caller: Annotated[list[str] | None, Argument(metavar="TITLE")] = None,
    tls_cert: Annotated[AnyPath | None, Argument(metavar="FILE")] = None,
    tls_ca: Annotated[AnyPath | None, Argument(metavar="FILE")] = None,
    strict: bool = False,
    policy: Policy = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
) -> Outcome:
    """Predict an archive's chest X-rays, and send the results back.

    For each image the command sends a structured report (TID 1500) and a Secondary Capture with the
    overlay to the study of the image. It does so once for each image. An image that is skipped is
    listed with the reason. After an interruption, run the same command again: it continues.

    Credentials are read from CXR_PACS_TOKEN, or from CXR_PACS_USER and CXR_PACS_PASSWORD. If
    --send-to names another service, its credentials come from variables that begin with
    CXR_PACS_SEND_. The exit status is 1 if something failed, and 2 if nothing could be done.

    Args:
        runs: Runs (folders of cxr train) or exports (of cxr export), each as PATH or NAME=PATH.
        dicomweb: URL of the archive's DICOMweb service, from which images are fetched.
        listen: Receive images by C-STORE instead, as AE:PORT from this machine alone, or as
            AE@0.0.0.0:PORT from other machines.
        send_to: Where results are sent: a DICOMweb service or a DICOM peer. By default it is
            --dicomweb.
        since: First study date to fetch, as 2026-01-31.
        watch: Seconds between two searches of the archive. Without it the archive is searched once.
        journal: SQLite file that records which images are done. It stores hashes of the identifiers
            only.
        log: Folder in which each prediction is recorded for cxr monitor
            (docs/guarantees.md#the-log). It holds no names of patients.
        dry_run: Fetch and predict, but send and record nothing. Each prediction is printed.
        modality: Modality to fetch, as a DICOM code such as CR. By default they are CR and DX.
        limit: Largest number of images to fetch in one search. By default all are fetched.
        patience: Seconds for which an archive may not answer. After that the command gives up, or
            with --watch waits for the next round.
        ae_title: AE title of this program as a sender. With --listen it is that of --listen.
        caller: AE title that may send to --listen. By default every sender may.
        tls_cert: PEM file with the key and certificate of this program, for TLS of --listen and
            of --send-to AE@HOST:PORT. Needs --tls-ca.
        tls_ca: PEM file of the authority that signs the certificates of DICOM peers. Needs
            --tls-cert.
        strict: Skip images with a warning, such as one that is no frontal chest X-ray. Without it
            they are predicted, and the warning is in the results.

    Returns:
        The numbers of images that were predicted, were skipped and failed.

    Raises:
        InputError: An address is wrong, options do not fit each other, or an archive does not
            respond.

    Example:
        cxr pacs out/chexnet --dicomweb https://pacs.example/dicom-web --since 2026-01-31

        cxr pacs out/chexnet --listen CXR:11112 --send-to ORTHANC@127.0.0.1:4242 --backend openvino
    """
    journal = as_path(journal)
    log = as_path(log)
    tls_cert = as_path(tls_cert)
    tls_ca = as_path(tls_ca)
    require_packages("pacs", "hospital", _NEEDED)
    if (dicomweb is None) == (listen is None):
        raise InputError("pacs: give either --dicomweb URL or --listen AE:PORT")
    if listen is not None:
        only_dicomweb = {
            "--since": since,
            "--watch": watch,
            "--dry-run": dry_run,
            "--limit": limit,
        }
        _refuse(only_dicomweb, "pacs --listen: {} is for --dicomweb; leave it out")
        if send_to is None:
            raise InputError("pacs --listen: say with --send-to where results go")
    else:
        _refuse({"--caller": caller}, "pacs --dicomweb: {} is for --listen; leave it out")
    if dry_run:
        recorded = {"--watch": watch, "--log": log}
        _refuse(recorded, "pacs --dry-run: {} is for a station that records; leave it out")
    _require_tls_fits(tls_cert, tls_ca, listen, send_to)
    modalities = modality or ["CR", "DX"]
    for code in modalities:
        if not _MODALITY.fullmatch(code):
            raise InputError(f"pacs --modality {code}: write a DICOM code such as CR")
    named = parse_runs(read_paths(runs), "cxr pacs")
    options = {"policy": policy, "backend": backend, "precision": precision, "device": device}
    require_backends(named, options)
    for name in _TALKATIVE:  # they log UIDs, addresses and header values
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from cxr_compare.hospital.pacs.station import run_station
    from cxr_compare.hospital.pacs.station_settings import StationSettings

    emit = console.emit if console.printed_as() == "text" else console.say
    with opened_log(log) as answer_log:
        station = StationSettings(
            url=dicomweb,
            listen=listen,
            callers=caller or [],
            send_to=send_to,
            title=ae_title,
            tls_cert=tls_cert,
            tls_ca=tls_ca,
            modalities=modalities,
            since=_study_date(since),
            limit=limit,
            watch=watch,
            journal=journal,
            patience=patience,
            dry_run=dry_run,
            strict=strict,
            log=answer_log,
        )
        tally = run_station(station, lambda: say_cautions(open_runs(named, options)), console, emit)
    keys = ("answered", "results", "done_before", "skipped", "failed")
    counts = {key: len(getattr(tally, key)) for key in keys}
    return Outcome("", counts, exit_status=int(bool(tally.failed)))


def _refuse(options: Mapping[str, object], message: str) -> None:
    """Refuse the first option that has a value; the message has a place for its name."""
    for option, value in options.items():
        if value:
            raise InputError(message.format(option))


def _require_tls_fits(
    tls_cert: Path | None, tls_ca: Path | None, listen: str | None, send_to: str | None
) -> None:
    """Refuse files for TLS that do not fit each other or the addresses of the station."""
    if (tls_cert is None) != (tls_ca is None):
        raise InputError("pacs: TLS needs both --tls-cert and --tls-ca")
    uses_dicom_peers = listen is not None or (send_to is not None and "://" not in send_to)
    if tls_cert is not None and not uses_dicom_peers:
        raise InputError(
            "pacs: --tls-cert is for --listen and --send-to AE@HOST:PORT; leave it out"
        )


def _study_date(text: str | None) -> str | None:
    """Return a date as DICOM writes it.

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
