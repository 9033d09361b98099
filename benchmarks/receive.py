"""Images of 17 MB by C-STORE and STOW-RS, durably: this node, its peers, and what disk and sockets allow.

All receivers are started; one after the other gets the same images under new UIDs, round after round.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.image import the_image
from benchmarks.receivers import RECEIVERS, Running, is_missing

CONNECTIONS = (1, 4)
FOLDER = Path(".artefacts/bench")


@dataclass(frozen=True)
class Measured:
    """One receiver, fed over so many connections in one way, once.

    Attributes
    ----------
    rate
        MB a second.
    cpu, sender_cpu
        CPU seconds of receiver and sender for an exam of four images.
    memory
        Greatest resident memory of the receiver so far, in MB.
    """

    name: str
    way: str
    connections: int
    rate: float
    cpu: float
    sender_cpu: float
    memory: float


def measure(
    repeats: int, images: int, only: Sequence[str] = (), connections: Sequence[int] = CONNECTIONS
) -> Iterator[Measured]:
    """Yield what is measured, round after round."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    names = [name for name in only or RECEIVERS if not is_missing(name)]
    running: dict[str, Running] = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch)
        the_image().save(folder)
        size = (folder / "image.bin").stat().st_size / 1e6
        try:
            for name in names:
                place = folder / name.replace(" ", "-")
                place.mkdir()
                running[name] = RECEIVERS[name](place)
            for each in running.values():
                each.server.wait()
            for repeat in range(repeats + 1):  # the first one warms up
                for count in connections:
                    for name, receiver in running.items():
                        for way in receiver.ports:
                            number = images if repeat else 4 * count
                            row = _send(name, receiver, way, count, number, folder, size)
                            if repeat:
                                yield row
        finally:
            for each in running.values():
                each.server.stop()


def _send(name: str, receiver: Running, way: str, connections: int, images: int, folder: Path, size: float) -> Measured:
    before = receiver.server.cpu()
    command = [sys.executable, "-m", "benchmarks.sender", way, folder, receiver.ports[way], connections, images]
    sent = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    took = json.loads(sent.stdout)
    used = receiver.server.cpu() - before
    if receiver.kept:
        for path in receiver.kept.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    exams = images / 4
    rate = images * size / took["seconds"]
    return Measured(name, way, connections, rate, used / exams, took["cpu"] / exams, receiver.server.memory())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--connections", nargs="*", type=int, default=CONNECTIONS)
    options = parser.parse_args()
    rows: dict[tuple[str, str, int], list[Measured]] = {}
    for row in measure(options.repeats, options.images, options.only, options.connections):
        rows.setdefault((row.name, row.way, row.connections), []).append(row)
    for (name, way, count), found in sorted(rows.items(), key=lambda each: (each[0][2], each[0][1])):
        rate = statistics.median(row.rate for row in found)
        limits = [row.rate for row in rows.get(("limit", "raw", count), [])]
        print(
            f"{name:18} {way:6} {count} {rate:7.0f} MB/s  of the limit {rate / statistics.median(limits or [1]):5.2f}  "
            f"CPU s/exam {statistics.median(row.cpu for row in found):.3f}  sender {statistics.median(row.sender_cpu for row in found):.3f}  "
            f"RSS {max(row.memory for row in found):.0f} MB   {min(row.rate for row in found):.0f}-{max(row.rate for row in found):.0f}"
        )


if __name__ == "__main__":
    main()
