"""DICOM network services: images are received and results are sent by C-STORE (PS3.4, annex B)."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    Verification,
)

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.hospital.pacs.journal import digest, writing
from cxr_compare.hospital.pacs.patience import OutageError, Patience, RefusedError, UnreachableError

_RECEIVED = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
_SUCCESS = 0x0000
_DUPLICATE = 0x0111
_OUT_OF_RESOURCES = 0xA700
_TIMEOUT = 60.0  # seconds
_HANDSHAKE_SECONDS = 5.0  # a caller that sends nothing delays others for at most this time
_TITLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,14}[\x21-\x7e])?")
_TEMPORARY = ".part"
_RESERVE = 1 << 17  # bytes that received images leave free, in which the journal can go on


@dataclass(frozen=True)
class Address:
    """Network address of a DICOM application entity: AE title, host name or IP address, port."""

    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str, *, host: str | None = None) -> Address:
        """Read an address ``AE@host:port``, or ``AE:port`` if there is a default host.

        Another form, and an AE title or a port that is not valid, are refused; the message names
        the option.
        """
        form = "AE@HOST:PORT" if host is None else "AE:PORT or AE@HOST:PORT"
        before, colon, port = text.rpartition(":")
        title, at, own = before.rpartition("@")
        if not at and host is not None:
            title = before
            own = host
        own = own.removeprefix("[").removesuffix("]")
        if not (colon and title and own and port.isascii() and port.isdigit()):
            raise InputError(f"{option} {text}: write {form}, such as ORTHANC@127.0.0.1:4242")
        if not 1 <= int(port) <= 65535:
            raise InputError(f"{option} {text}: the port must be 1 to 65535")
        return cls(require_title(title, option), own, int(port))

    @property
    def shown(self) -> str:
        """The address as text, ``AE@host:port``."""
        return f"{self.title}@{self.host}:{self.port}"


def require_title(title: str, option: str) -> str:
    """Check an AE title (PS3.5, VR AE), and return it; the message names the option."""
    if not _TITLE.fullmatch(title) or "\\" in title:
        raise InputError(
            f"{option} {title}: an AE title has 1 to 16 ASCII characters and no backslash"
        )
    return title


class _Listening(ssl.SSLContext):
    """The receiver's side of TLS, which does not wait forever for a caller to begin."""

    def wrap_socket(self, sock: socket.socket, *given: Any, **named: Any) -> ssl.SSLSocket:
        sock.settimeout(_HANDSHAKE_SECONDS)
        try:
            wrapped = super().wrap_socket(sock, *given, **named)
        except OSError:
            sock.close()
            raise
        if wrapped.version() is None:  # the caller was gone before it was listened to
            wrapped.close()
            raise ConnectionAbortedError
        wrapped.settimeout(None)
        return wrapped


@dataclass(frozen=True)
class Tls:
    """Files for TLS 1.2 or later, where each side shows a certificate and checks the other side's.

    Attributes:
        own: PEM file with the private key and the certificate of this program.
        authority: PEM file with the certificates of the authorities that sign certificates of
            peers.

    Source:
        DICOM PS3.15, B.9: the BCP 195 profile.
    """

    own: Path
    authority: Path

    def receiving(self) -> ssl.SSLContext:
        """Return the TLS settings for receiving images (`listening`).

        Only senders with a certificate of the authority are accepted. A file that holds no key or
        certificate in the PEM format is refused.
        """
        context = self._filled(_Listening(ssl.PROTOCOL_TLS_SERVER))
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def sending(self) -> ssl.SSLContext:
        """Return the TLS settings for sending results (`StorePeer`).

        The certificate of the peer must name its host. Files are refused as in `receiving`.
        """
        return self._filled(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for option, path, load in (
            ("--tls-cert", self.own, context.load_cert_chain),
            ("--tls-ca", self.authority, context.load_verify_locations),
        ):
            try:
                load(path)
            except ssl.SSLError:
                needed = "key and certificate" if option == "--tls-cert" else "certificates"
                raise InputError(f"{option}: {path}: holds no {needed} as PEM") from None
            except OSError as error:
                raise InputError(f"{option}: {path}: {str(error.strerror).lower()}") from None
        return context


class StorePeer:
    """Sender of DICOM results to an application entity by C-STORE, with or without TLS.

    `address` is that of the receiving application entity (the peer), and `title` the AE title of
    this program as the sender. `patience` is the rule for repeating a request. Without `tls`
    nothing is encrypted.

    Attributes:
        shown: The address as text, ``AE@host:port``.
    """

    def __init__(
        self, address: Address, title: str, patience: Patience, tls: Tls | None = None
    ) -> None:
        self.shown = address.shown
        self.address = address
        self._title = title
        self._patience = patience
        self._tls = tls and (tls.sending(), address.host)

    def echo(self) -> None:
        """Ask the peer once whether it answers (the DICOM request C-ECHO).

        `UnreachableError` says that it does not.
        """
        try:
            with suppress(RefusedError), self._association([(Verification, None)]) as association:
                association.send_c_echo()
        except OutageError as outage:
            raise UnreachableError(f"{self.shown}: {outage.reason}") from None

    def store(self, results: Sequence[Dataset]) -> None:
        """Send DICOM results to the peer. A result that the peer already has counts as stored.

        `RefusedError` says that the peer does not take or store a result, and `UnreachableError`
        that it has not answered in time.
        """
        self._patience.run(lambda: self._store(results), self.shown)

    def _store(self, results: Sequence[Dataset]) -> None:
        kinds = [(result.SOPClassUID, result.file_meta.TransferSyntaxUID) for result in results]
        with self._association(kinds) as association:
            for result in results:
                self._send(association, result)

    @contextmanager
    def _association(self, kinds: Sequence[tuple[str, str | None]]) -> Iterator[Any]:
        """Give an association for kinds of objects, each with its transfer syntax."""
        entity = AE(ae_title=self._title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _TIMEOUT
        entity.connection_timeout = 10.0
        for kind, syntax in dict.fromkeys(kinds):
            entity.add_requested_context(kind, syntax)
        peer = self.address
        try:
            association = entity.associate(
                peer.host, peer.port, ae_title=peer.title, tls_args=self._tls
            )
        except socket.gaierror:
            raise OutageError("no machine of that name is found") from None
        if not association.is_established:
            if association.is_rejected:
                raise OutageError(f"rejects the association of {self._title}")
            if association.acceptor.primitive is not None:
                raise RefusedError(f"{self.shown}: takes neither reports nor Secondary Captures")
            of_tls = "" if self._tls is None else ", or the certificates do not match"
            raise OutageError(f"refuses the connection or does not answer{of_tls}")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _send(self, association, result: Dataset) -> None:  # type: ignore[no-untyped-def]
        try:
            status = association.send_c_store(result).get("Status")
        except ValueError:  # no accepted context: nothing is sent
            raise RefusedError(f"{self.shown}: does not take a {result.SOPClassUID.name}") from None
        except RuntimeError:
            raise OutageError("the association broke") from None
        if status is None:
            raise OutageError("the association broke")
        if status in (_SUCCESS, _DUPLICATE) or status & 0xF000 == 0xB000:
            return
        if status & 0xFF00 == _OUT_OF_RESOURCES:
            raise OutageError(f"is out of resources (status 0x{status:04X})")
        raise RefusedError(f"{self.shown}: does not store a result (status 0x{status:04X})")


class Inbox:
    """A folder of received images, which only this user can read; it is made if necessary.

    An image appears in it complete, and stays until it has been predicted.

    Attributes:
        arrived: Event that is set when an image arrives, so that another thread can wait for it.
    """

    def __init__(self, folder: Path) -> None:
        with writing(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for unfinished in folder.glob(f"*{_TEMPORARY}"):
                unfinished.unlink()
        self.folder = folder
        self.arrived = threading.Event()

    def put(self, uid: str, content: bytes) -> Path:
        """Write an image (SOP Instance UID, content of its file) to the folder; return the path.

        It is on the disk when this method returns. Too little space is an `OSError`.
        """
        path = self.folder / f"{digest(uid)}.dcm"
        # Two associations may bring the same image at the same time.
        temporary = path.with_suffix(f".{threading.get_ident()}{_TEMPORARY}")
        if shutil.disk_usage(self.folder).free < len(content) + _RESERVE:
            raise OSError("no space is left")
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name != "nt":  # Windows opens no folder
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        self.arrived.set()
        return path

    def waiting(self) -> list[Path]:
        """Return the files of the received images that are not predicted yet, the oldest first."""
        return sorted(self.folder.glob("*.dcm"), key=lambda path: path.stat().st_mtime_ns)


@contextmanager
def listening(
    address: Address, inbox: Inbox, callers: Sequence[str], tls: Tls | None = None
) -> Iterator[Address]:
    """Receive radiographs at an address during a ``with`` block, which gets the address.

    Objects of other kinds are refused when a sender connects, so that the sender knows that they
    were not stored. An image is acknowledged once it is on the disk. Senders must call this station
    by the AE title of `address`. `callers` are the AE titles that may send; without any, every
    sender may. Without `tls` nothing is encrypted. A port that cannot be opened is an `InputError`.
    """
    entity = AE(ae_title=address.title)
    entity.require_called_aet = True
    if callers:
        entity.require_calling_aet = list(callers)
    entity.add_supported_context(Verification)
    for kind in _RECEIVED:
        entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)

    def receive(event: Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        try:
            inbox.put(uid, event.encoded_dataset())
        except OSError:
            return _OUT_OF_RESOURCES
        return _SUCCESS

    context = tls and tls.receiving()
    try:
        server = entity.start_server(
            (address.host, address.port),
            block=False,
            ssl_context=context,
            evt_handlers=[(evt.EVT_C_STORE, receive)],
        )
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"--listen {address.shown}: {reason}; choose another port") from None
    try:
        yield address
    finally:
        server.shutdown()
