"""`cxr pacs`: radiographs of a hospital's archive, answered for, and the results sent back."""

from __future__ import annotations

import logging
import re
from datetime import date
from pathlib import Path
from typing import Annotated

from cxr_compare.data_prep.contracts.errors import InputError, require_packages
from cxr_compare.scripts import console
from cxr_compare.scripts.options import Backend, Device, Log, Policy, Precision
from cxr_compare.scripts.runner import AnyPath, Argument, Outcome, as_path, command
from cxr_compare.scripts.runs import (
    Runs,
    open_runs,
    opened_log,
    parse_runs,
    read_paths,
    require_backends,
)

_NEEDED = ("dicomweb_client", "highdicom", "pynetdicom")
_TALKATIVE = ("dicomweb_client", "highdicom", "pydicom", "pynetdicom", "requests", "urllib3")


@command
def pacs(
    runs: Runs,
    *,
    dicomweb: Annotated[str | None, Argument(metavar="URL")] = None,
    listen: Annotated[str | None, Argument(metavar="AE:PORT")] = None,
    send_to: Annotated[str | None, Argument(metavar="URL|AE@HOST:PORT")] = None,
    since: Annotated[str | None, Argument(metavar="DATE")] = None,
    modality: list[str] | None = None,
    once: bool = False,
    watch: Annotated[float | None, Argument(least=1.0, metavar="SECONDS")] = None,
    limit: Annotated[int | None, Argument(least=1)] = None,
    journal: AnyPath = Path("cxr-pacs.sqlite"),
    log: Log = None,
    dry_run: bool = False,
    strict: bool = False,
    patience: Annotated[float, Argument(least=0.0, metavar="SECONDS")] = 60.0,
    ae_title: str = "CXR-COMPARE",
    caller: Annotated[list[str] | None, Argument(metavar="AE")] = None,
    tls_cert: Annotated[AnyPath | None, Argument(metavar="FILE")] = None,
    tls_ca: Annotated[AnyPath | None, Argument(metavar="FILE")] = None,
    policy: Policy = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
) -> Outcome:
    """Answer for an archive's chest radiographs; send the results back.

    Each image gets a structured report (TID 1500) and a Secondary Capture with the overlay, in its
    own study, once. Other images are skipped, each with its reason. The same command goes on after
    any end. Credentials come from CXR_PACS_TOKEN, or CXR_PACS_USER and CXR_PACS_PASSWORD
    (CXR_PACS_SEND_... for another --send-to). Exit status 1: something failed; 2: nothing could be
    done.

    Args:
        runs: Runs or exports, each as PATH or NAME=PATH.
        dicomweb: DICOMweb service of the archive to fetch from.
        listen: Receive by C-STORE instead, from this machine alone; AE@0.0.0.0:PORT for others.
        send_to: Where results go: a DICOMweb service or a DICOM peer; by default --dicomweb.
        since: First study date, as 2026-01-31.
        modality: Modality to take; by default CR and DX.
        once: Look once, as without --watch.
        watch: Seconds until the next look.
        limit: Most images to fetch a look.
        journal: File that says what is done already, without identifiers.
        dry_run: Fetch and answer, but send and note nothing.
        strict: Skip images with a warning.
        patience: Seconds that an archive may stay away.
        ae_title: Our AE title as a sender; with --listen that of --listen.
        caller: AE title that may send to --listen.
        tls_cert: PEM file with our key and certificate: TLS for --listen and --send-to
            AE@HOST:PORT. Needs --tls-ca.
        tls_ca: PEM file of who signs the certificates of DICOM peers.

    Returns:
        How many images were answered, skipped and failed.

    Raises:
        InputError: An address is wrong, options do not fit, or an archive stays away.

    Example:
        cxr pacs out/chexnet --dicomweb https://pacs.example/dicom-web --since 2026-01-31

        cxr pacs out/chexnet --listen CXR:11112 --send-to ORTHANC@127.0.0.1:4242
    """
    journal = as_path(journal)
    log = as_path(log)
    tls_cert = as_path(tls_cert)
    tls_ca = as_path(tls_ca)
    require_packages("pacs", "pacs", _NEEDED)
    if (dicomweb is None) == (listen is None):
        raise InputError("pacs: give either --dicomweb URL or --listen AE:PORT")
    if once and watch is not None:
        raise InputError("pacs: --once and --watch exclude each other")
    if listen is not None:
        of_dicomweb = {"since": since, "once": once, "watch": watch, "limit": limit,
                       "dry-run": dry_run}  # fmt: skip
        if unfit := [option for option, value in of_dicomweb.items() if value]:
            raise InputError(f"pacs --listen: --{unfit[0]} is for --dicomweb; leave it out")
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
    if dry_run and log is not None:
        raise InputError("pacs --log: --dry-run notes nothing; leave one out")
    named = parse_runs(read_paths(runs))
    options = {"policy": policy, "backend": backend, "precision": precision, "device": device}
    require_backends(named, options)
    for name in _TALKATIVE:  # they log UIDs, addresses and header values
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from cxr_compare.serving.pacs.station import StationSettings, run_station

    emit = console.emit if console.printed_as() == "text" else console.say
    with opened_log(log) as answer_log:
        settings = StationSettings(
            url=dicomweb, listen=listen, callers=caller or [], send_to=send_to, title=ae_title,
            tls_cert=tls_cert, tls_ca=tls_ca, modalities=_modalities(modality),
            since=_study_date(since), limit=limit, watch=watch, journal=journal,
            patience=patience, dry_run=dry_run, strict=strict, log=answer_log,
        )  # fmt: skip
        tally = run_station(settings, lambda: open_runs(named, options), console, emit)
    told = ("answered", "results", "done_before", "skipped", "failed")
    counts = {name: len(getattr(tally, name)) for name in told}
    return Outcome("", counts, exit_status=int(bool(tally.failed)))


def _modalities(names: list[str] | None) -> list[str]:
    """The modalities, as code strings."""
    codes = [name.strip().upper() for name in names or ["CR", "DX"]]
    if wrong := [code for code in codes if not re.fullmatch(r"[A-Z0-9 _]{1,16}", code)]:
        raise InputError(f"--modality {wrong[0]}: write a modality such as CR or DX")
    return codes


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
