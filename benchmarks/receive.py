"""Images of 17 MB by C-STORE and STOW-RS, durably: this node, its peers, and what disk and sockets allow.

All receivers are started; one after the other gets the same images under new UIDs, round after round.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.image import the_image
from benchmarks.receivers import RECEIVERS, Running, is_missing
from benchmarks.values import LIMIT, US, Value

CONNECTIONS = (1, 4)
IMAGES = 16
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
                    for name, receiver in running.items():
                        for way in receiver.ports:
                            found = _send(name, receiver, way, count, images if repeat else 4 * count, folder)
                            yield from found if repeat else ()
            yield Value("greatest memory", "MB", US, running[US].server.memory())
        finally:
            for each in running.values():
                each.server.stop()


def _send(name: str, receiver: Running, way: str, connections: int, images: int, folder: Path) -> list[Value]:
    before = receiver.server.cpu()
    command = [sys.executable, "-m", "benchmarks.sender", way, folder, receiver.ports[way], connections, images]
    sent = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
    seconds = json.loads(sent.stdout)["seconds"]
    used = receiver.server.cpu() - before
    if receiver.kept:
        for path in receiver.kept.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    size = (folder / "image.bin").stat().st_size / 1e6
    rate, cpu = images * size / seconds, used / (images / 4)
    over = f"{connections} connection{'s' if connections > 1 else ''}"
    # The limit is of both ways; what a way costs beside C-STORE is told by our own figure.
    ways = NAMES.values() if name == LIMIT else [NAMES[way]]
    found = []
    for each in ways:
        found.append(Value(f"{each}, {over}", "MB/s", name, rate, more=True))
        found.append(Value(f"processor, {each}, {over}", "s/exam", name, cpu))
    if name == US and way == "store":
        found.append(Value(f"STOW-RS, {over}", "MB/s", f"{US} C-STORE", rate, more=True))
    return found
