"""Connections of `cxr pacs`: the archive with the images, and the destination of the results."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, closing
from typing import NamedTuple, TypeAlias
from urllib.parse import urlsplit

import requests.utils

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.work.network_addresses import is_loopback
from cxr_compare.data_prep.work.progress import Progress
from cxr_compare.hospital.pacs.dicomweb import Credentials, DicomWebArchive
from cxr_compare.hospital.pacs.dimse import Address, StorePeer, require_title
from cxr_compare.hospital.pacs.patience import Patience, UnreachableError
from cxr_compare.hospital.pacs.station_settings import StationSettings

Destination: TypeAlias = DicomWebArchive | StorePeer

_SOURCE_VARIABLES = "CXR_PACS"  # start of the names of environment variables with credentials
_DESTINATION_VARIABLES = "CXR_PACS_SEND"
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Connections(NamedTuple):
    """Connections to the archive with the images and to the archive that gets the results.

    Attributes:
        archive: Archive (PACS) from which images are fetched; None if other machines send the
            images.
        destination: Archive to which results are sent. It may be the same as `archive`.
    """

    archive: DicomWebArchive | None
    destination: Destination


def open_connections(
    settings: StationSettings, progress: Progress, open_archives: ExitStack
) -> Connections:
    """Open the connections to the archive with the images and to the destination of the results.

    Nothing is sent through them yet. A connection without encryption gets a warning, unless it
    stays on this machine. The exit stack closes the connections at the end of the program. A wrong
    address, AE title, certificate or credential in the environment is refused, and a station that
    receives images and has no destination.
    """
    if settings.listening_address is not None:
        own_title = settings.listening_address.title
    else:
        own_title = require_title(settings.title, "--ae-title")
    for caller in settings.callers:
        require_title(caller, "--caller")
    patience = Patience(settings.patience, say=progress.say)

    def open_archive(url: str, variables: str) -> DicomWebArchive:
        credentials = Credentials.from_environment(os.environ, variables)
        return open_archives.enter_context(closing(DicomWebArchive(url, credentials, patience)))

    archive = None if settings.url is None else open_archive(settings.url, _SOURCE_VARIABLES)
    send_to = settings.send_to
    destination: Destination
    if send_to is None:
        if archive is None:
            raise InputError("pacs --listen: say with --send-to where results go")
        destination = archive
    elif "://" in send_to:
        same_server = settings.url is not None and _server(settings.url) == _server(send_to)
        variables = _SOURCE_VARIABLES if same_server else _DESTINATION_VARIABLES
        destination = open_archive(send_to, variables)
    else:
        address = Address.parse(send_to, "--send-to")
        destination = StorePeer(address, own_title, patience, settings.tls)
    connections = Connections(archive, destination)
    _warn_of_open_networks(settings, connections, progress)
    return connections


def check_connections(
    settings: StationSettings, connections: Connections, progress: Progress
) -> None:
    """Send a test request to the archive and the destination, before models are loaded.

    It is no error if the destination does not answer: results wait until it does. Nor is it an
    error if the archive does not answer and is searched repeatedly. A name that no machine has is
    an error: it was misspelt, and nobody will answer. So is an archive that refuses the search, or
    that does not answer and is searched only once.
    """
    archive, destination = connections
    for end in dict.fromkeys(connections):
        if end is not None:
            _require_known_host(end)
    searches_once = settings.watch is None
    if archive is not None:
        try:
            archive.echo(settings.modalities[0], settings.since, waits=searches_once)
        except UnreachableError:
            if searches_once:
                raise
            # Otherwise the first search reports it and the next one tries again.
    if destination is not archive:
        try:
            destination.echo()
        except InputError as error:
            progress.say(f"{error}; results are sent when it answers, and nothing is lost")


def _require_known_host(end: Destination) -> None:
    """Check that a machine has the name in an address; a proxy knows the names behind it itself."""
    if isinstance(end, StorePeer):
        host = end.address.host
    else:
        host = str(urlsplit(end.shown).hostname)
        proxies = requests.utils.get_environ_proxies(end.shown)
        if requests.utils.select_proxy(end.shown, proxies) is not None:
            return
    try:
        socket.getaddrinfo(host, None)
    except (socket.gaierror, UnicodeError):  # the second: an empty label, as in pacs..example
        raise InputError(
            f"{end.shown}: no machine of the name {host} is found; correct it, or try again when "
            "the network knows it"
        ) from None


def _warn_of_open_networks(
    settings: StationSettings, connections: Connections, progress: Progress
) -> None:
    """Warn of each connection on which others could read images or credentials."""
    ends = [end for end in dict.fromkeys(connections) if end is not None]
    dicom_peers = [end.address for end in ends if isinstance(end, StorePeer)]
    if settings.listening_address is not None:
        dicom_peers.insert(0, settings.listening_address)
    for peer in dicom_peers:
        if settings.tls is None and not is_loopback(peer.host):
            progress.say(
                f"{peer.shown}: WARNING: DICOM's own network neither encrypts nor asks for a "
                "password; give --tls-cert and --tls-ca, or keep it "
                "inside the hospital's network"
            )
    for end in ends:
        if isinstance(end, DicomWebArchive):
            parts = urlsplit(end.shown)
            if parts.scheme == "http" and not is_loopback(str(parts.hostname)):
                progress.say(
                    f"{end.shown}: WARNING: http is not encrypted, so that others on the network "
                    "can read images and credentials; use https"
                )


def _server(url: str) -> str:
    """Return scheme, host and port of a URL as text; two URLs of one server have the same."""
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"
