"""Images of 17 MB by C-STORE and STOW-RS, durably: this node, its peers, and what disk and sockets allow.

All receivers are started; one after the other gets the same images under new UIDs, round after round, each round in
another order, and each when the disk has written what the one before has left to it. Beside them a plain file is copied.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.image import the_image
from benchmarks.receivers import RECEIVERS, Running, is_missing
from benchmarks.values import LIMIT, US, Value

CONNECTIONS = (1, 4)
IMAGES = 16
MANY = 30
"""Associations of as many senders as settings allow that name no number."""
COPY = "file copy"
FOLDER = Path(".artefacts/bench")
NAMES = {"store": "C-STORE", "stow": "STOW-RS"}


def values(
    repeats: int, images: int = IMAGES, only: Sequence[str] = (), connections: Sequence[int] = CONNECTIONS
) -> Iterator[Value]:
    """Yield rates, and CPU seconds for an exam of four images; the first round warms up."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    running: dict[str, Running] = {}
    with tempfile.TemporaryDirectory(dir=FOLDER) as scratch:
        folder = Path(scratch)
        the_image().save(folder)
        try:
            for name in [name for name in only or RECEIVERS if not is_missing(name)]:
                place = folder / name.replace(" ", "-")
                place.mkdir()
                running[name] = RECEIVERS[name](place)
            for each in running.values():
                each.server.wait()
            for repeat in range(repeats + 1):
                for count in connections:
                    number = images if repeat else 4 * count
                    for name in np.random.default_rng(repeat).permutation([*running, COPY]).tolist():
                        if name == COPY:
                            found = [_copy(folder, number)] if count == 1 else []
                        else:
                            found = [
                                value
                                for way in running[name].ports
                                for value in _send(name, running[name], way, count, number, folder)
                            ]
                        yield from found if repeat else ()
            if US in running:
                yield Value("greatest memory", "MB", US, running[US].server.memory())
                _send(US, running[US], "store", MANY, 2 * MANY, folder)
                yield Value(_over("greatest memory", MANY), "MB", US, running[US].server.memory())
        finally:
            for each in running.values():
                each.server.stop()


def _send(name: str, receiver: Running, way: str, connections: int, images: int, folder: Path) -> list[Value]:
    os.sync()
    before = receiver.server.cpu()
    command = [sys.executable, "-m", "benchmarks.sender", way, folder, receiver.ports[way], connections, images]
    sent = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    seconds = json.loads(sent.stdout)["seconds"]
    used = receiver.server.cpu() - before
    if receiver.kept:
        for path in receiver.kept.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    rate, cpu = images * _megabytes(folder) / seconds, used / (images / 4)
    # The limit is of both ways; what a way costs beside C-STORE is told by our own figure.
    ways = NAMES.values() if name == LIMIT else [NAMES[way]]
    found = []
    for each in ways:
        found.append(Value(_over(each, connections), "MB/s", name, rate, more=True))
        found.append(Value(_over(f"processor, {each}", connections), "s/exam", name, cpu))
    if name == US and way == "store":
        found.append(Value(_over("STOW-RS", connections), "MB/s", f"{US} C-STORE", rate, more=True))
    return found


def _copy(folder: Path, images: int) -> Value:
    """Return the rate at which one image is copied so many times, and each copy flushed."""
    os.sync()
    places = [folder / f"copy-{number}" for number in range(images)]
    began = time.perf_counter()
    for place in places:
        shutil.copyfile(folder / "image.bin", place)
        with place.open("rb") as file:
            os.fsync(file.fileno())
    seconds = time.perf_counter() - began
    for place in places:
        place.unlink()
    return Value(_over("C-STORE", 1), "MB/s", COPY, images * _megabytes(folder) / seconds, more=True)


def _megabytes(folder: Path) -> float:
    return (folder / "image.bin").stat().st_size / 1e6


def _over(measure: str, connections: int) -> str:
    return f"{measure}, {connections} connection{'s' if connections > 1 else ''}"
