"""Receivers that are measured side by side: this node, its peers, and what the disk allows."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import Server, free_ports

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
DICOM_WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PDU = 131072


@dataclass(frozen=True)
class Running:
    """A receiver that runs.

    Attributes
    ----------
    server
        Its process.
    ports
        Way → port of those that it takes.
    kept
        Folder of the files that it has received; emptied after each measurement. None when it must keep them.
    """

    server: Server
    ports: dict[str, int]
    kept: Path | None


Start = Callable[[Path], Running]


def limit(folder: Path) -> Running:
    """Start what the disk allows."""
    [port] = free_ports(1)
    return Running(_server("limit", port, folder), {"raw": port}, folder)


def naive(folder: Path) -> Running:
    """Start pynetdicom as its examples show it."""
    [port] = free_ports(1)
    return Running(_server("naive", port, folder), {"store": port}, folder)


def node(folder: Path, command: str = "serve") -> Running:
    """Start this node's doors, or what else a command starts, with settings as they are when none are made."""
    dicom, web = free_ports(2)
    environment = {
        "MAMMONODE_HTTP__PORT": str(web),
        "MAMMONODE_HTTP__REQUESTS_PER_SECOND": "100000",
        "MAMMONODE_DICOM__PORT": str(dicom),
        "MAMMONODE_DICOM__ALLOW_UNKNOWN_CALLERS": "true",
        "MAMMONODE_STORAGE__FOLDER": str(folder / "store"),
        "MAMMONODE_STORAGE__MIN_FREE_GB": "1",
        "MAMMONODE_STORAGE__MAX_USED_PERCENT": "100",
        "MALLOC_ARENA_MAX": "2",  # as systemd/mammonode.service starts it
    }
    words = [sys.executable, "-P", "-m", "node", command]
    server = Server(words, dicom, folder.with_suffix(".log"), environment)
    return Running(server, {"store": dicom, "stow": web}, folder / "store" / "instances")


def storescp(folder: Path) -> Running:
    """Start DCMTK's receiver, without waiting for more to send (TCP_NODELAY); it flushes nothing."""
    [port] = free_ports(1)
    command = ["storescp", "-q", "+xa", "-pdu", PDU, "-od", folder, port]
    return Running(Server(command, port, folder.with_suffix(".log"), {"TCP_NODELAY": "1"}), {"store": port}, folder)


def orthanc(folder: Path, **settings: object) -> Running:
    """Start Orthanc, by default as it comes."""
    dicom, web = free_ports(2)
    configuration = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": dicom,
        "HttpPort": web,
        "Plugins": [str(DICOM_WEB)] if DICOM_WEB.exists() else [],
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        **settings,
    }
    file = folder.with_suffix(".json")
    file.write_text(json.dumps(configuration))
    # It would not overwrite what it knows: its files stay, and each image comes under a new UID.
    ports = {"store": dicom} | ({"stow": web} if DICOM_WEB.exists() else {})
    return Running(Server([ORTHANC, file], dicom, folder.with_suffix(".log")), ports, None)


def tuned_orthanc(folder: Path) -> Running:
    """Start Orthanc with what makes it faster: long PDUs, no flush, no digest."""
    return orthanc(folder, MaximumPduLength=PDU, SyncStorageArea=False, StoreMD5ForAttachments=False)


RECEIVERS: dict[str, Start] = {
    "limit": limit,
    "mammonode": node,
    "storescp": storescp,
    "orthanc": orthanc,
    "orthanc tuned": tuned_orthanc,
    "pynetdicom naive": naive,
}


def is_missing(name: str) -> bool:
    """Tell whether a receiver is not installed here."""
    program = {"storescp": "storescp", "orthanc": ORTHANC, "orthanc tuned": ORTHANC}.get(name)
    return bool(program) and not (shutil.which(program or "") or os.access(program or "", os.X_OK))


def missing() -> list[str]:
    """Return the peers that are not installed here."""
    return [name for name in RECEIVERS if is_missing(name)]


def _server(module: str, port: int, folder: Path) -> Server:
    return Server([sys.executable, "-m", f"benchmarks.{module}", port, folder], port, folder.with_suffix(".log"))
