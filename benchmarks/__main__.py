"""Measures this node beside its peers and what the machine allows, and prints one table.

Run: make bench, or python -m benchmarks [PART ...] [--repeats N] [--against FILE]
Figures of one run compare; those of two runs only where the machine did nothing else. Each run is kept as JSON under the
name of its commit.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.machine import described
from benchmarks.receivers import missing
from benchmarks.values import Collected, Required, Value, medians

FOLDER = Path(".artefacts/bench")
REQUIRED = (
    Required("C-STORE, ", "limit", 0.45),
    Required("C-STORE, ", "storescp", 1.5),
    Required("C-STORE, ", "orthanc", 3.0),
    Required("STOW-RS, ", "mammonode C-STORE", 0.8),
    Required("greatest memory", "", 150),
    Required("exec to C-ECHO", "", 2.0),
    Required("idle processor", "", 0.5),
    Required("command ", "", 0.6),
    Required("an exam on cpu", "", 6.0),
    Required("decoding JPEG Lossless", "pydicom", 0.2),
    Required("answer, beyond", "", 1.0),
    Required("growth", "young", 1.3),
    Required("slowest of growth", "young", 2.0),
)


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes
    ----------
    module
        Where its `values` are.
    told
        What it measures.
    usual
        Whether it is measured when no part is named.
    """

    module: str
    told: str
    usual: bool = True

    def values(self, repeats: int) -> Iterator[Value]:
        """Yield what it measures, round after round."""
        measures: Callable[[int], Iterator[Value]] = import_module(f"benchmarks.{self.module}").values
        return measures(repeats)


PARTS = {
    "receive": Part("receive", "images of 17 MB by C-STORE and STOW-RS"),
    "start": Part("start", "from exec to the first answer, idling, commands"),
    "exam": Part("exam_stages", "one exam from files to objects, with the model that ships"),
    "decode": Part("decoding", "four views in JPEG Lossless"),
    "answer": Part("answering", "from the last image to the answer, beyond quiet time and reading"),
    "objects": Part("result_objects", "every kind of result object"),
    "growth": Part("growth", "statements on an index of a million instances", usual=False),
    "training": Part("training_step", "a step of training of every network", usual=False),
}


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(f"{n}: {p.told}" for n, p in PARTS.items()))
    parser.add_argument("--repeats", type=int, default=5, help="rounds; each measures everybody once")
    parser.add_argument("--against", type=Path, help="a run that was kept, to compare with")
    options = parser.parse_args()
    chosen = options.parts or [name for name, part in PARTS.items() if part.usual]
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    before = medians(json.loads(options.against.read_text())["measured"]) if options.against else {}
    console, collected = Console(width=None if sys.stdout.isatty() else 160), Collected()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed} values"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        for name in chosen:
            task = progress.add_task(PARTS[name].told, total=None)
            for value in PARTS[name].values(options.repeats):
                collected.add(value)
                progress.update(task, advance=1, description=f"{PARTS[name].told}: {value.measure}, {value.name}")
            progress.remove_task(task)
    console.print(f"{described()}; medians of {options.repeats} rounds, all measured in turn")
    if absent := missing():
        console.print(f"not installed, and so not compared: {', '.join(absent)} (make peers)")
    console.print(collected.table(REQUIRED, before))
    console.print(f"kept in {_keep(collected, options.repeats)}")


def _keep(collected: Collected, repeats: int) -> Path:
    now = datetime.now(UTC)
    FOLDER.mkdir(parents=True, exist_ok=True)
    commit = _commit()
    path = FOLDER / f"{now:%Y%m%d-%H%M%S}-{commit}.json"
    told = {"commit": commit, "machine": described(), "at": now.isoformat(), "repeats": repeats}
    path.write_text(json.dumps(told | {"measured": collected.document()}, indent=1))
    return path


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
