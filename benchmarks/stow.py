"""Throughput of STOW-RS: this node and Orthanc, one after the other on this machine; images a second and their ratio.

Run: python benchmarks/stow.py [--exams N] [--clients N]
Both get the same full-size phantom images over HTTP on the loopback address, one image a request, from so many clients.
The node answers only when file, folders and index are flushed; Orthanc's defaults do not flush each file.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from node.phantom import phantom_exam
from node.results.encode import to_bytes

ORTHANC = "/usr/sbin/Orthanc"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=8)
    parser.add_argument("--clients", type=int, default=4)
    options = parser.parse_args()
    exams = [phantom_exam(number, patient_id=f"P{number}") for number in range(options.exams)]
    images = [to_bytes(image) for exam in exams for image in exam.images]
    size = sum(map(len, images)) / 1e6
    print(f"{len(images)} images of {size / len(images):.1f} MB, {options.clients} clients")
    rates = {}
    for name, serves in (("Mammonode", a_node), ("Orthanc", an_orthanc)):
        with tempfile.TemporaryDirectory() as folder, serves(Path(folder)) as url:
            seconds = send(url, images, options.clients)
        rates[name] = len(images) / seconds
        print(f"{name:10} {rates[name]:6.1f} images/s  {size / seconds:6.0f} MB/s")
    print(f"ratio Mammonode / Orthanc: {rates['Mammonode'] / rates['Orthanc']:.2f}")


def send(url: str, images: Sequence[bytes], clients: int) -> float:
    """Return the seconds that storing all images takes."""
    boundary = "benchmark"
    headers = {
        "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
        "Accept": "application/dicom+json",
    }
    head, tail = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode(), f"\r\n--{boundary}--\r\n".encode()
    with httpx2.Client(timeout=120, trust_env=False) as client, ThreadPoolExecutor(clients) as pool:

        def store(image: bytes) -> None:
            client.post(f"{url}/studies", content=head + image + tail, headers=headers).raise_for_status()

        store(images[0])  # connections, caches
        began = time.perf_counter()
        list(pool.map(store, images))
        return time.perf_counter() - began


@contextmanager
def a_node(folder: Path) -> Iterator[str]:
    """Run ``mammonode serve`` and yield the address of its DICOMweb service."""
    port, dicom = a_free_port(), a_free_port()
    environment = os.environ | {
        "MAMMONODE_HTTP__PORT": str(port),
        "MAMMONODE_HTTP__REQUESTS_PER_SECOND": "100000",
        "MAMMONODE_DICOM__PORT": str(dicom),
        "MAMMONODE_STORAGE__FOLDER": str(folder / "store"),
        "MAMMONODE_STORAGE__MIN_FREE_GB": "0",
        "MAMMONODE_STORAGE__MAX_USED_PERCENT": "100",
    }
    command = [str(Path(sys.executable).parent / "mammonode"), "serve"]
    yield from _running(command, environment, f"http://127.0.0.1:{port}/livez", f"http://127.0.0.1:{port}/dicom-web")


@contextmanager
def an_orthanc(folder: Path) -> Iterator[str]:
    """Run Orthanc and yield the address of its DICOMweb service."""
    if not shutil.which(ORTHANC) or not Path(PLUGIN).exists():
        raise SystemExit("Orthanc with DICOMweb is not installed: make peers")
    port = a_free_port()
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "Plugins": [PLUGIN],
        "HttpPort": port,
        "DicomPort": a_free_port(),
        "AuthenticationEnabled": False,
        "HttpThreadsCount": 50,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    where = f"http://127.0.0.1:{port}"
    yield from _running([ORTHANC, str(configuration)], dict(os.environ), f"{where}/system", f"{where}/dicom-web")


def _running(command: Sequence[str], environment: dict[str, str], ready: str, url: str) -> Iterator[str]:
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with suppress(OSError), urllib.request.urlopen(ready, timeout=5):  # noqa: S310 - a fixed scheme
                break
            if process.poll() is not None:
                raise SystemExit(f"{command[0]} has ended")
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def a_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
