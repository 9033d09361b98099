"""How far OpenVINO and torch agree on real images, and how long each takes: the shipped model, patients it was not trained on.

Run: python benchmarks/runtimes.py MANIFEST [--images N] [--threads 2]
The manifest is that of ``mammonode train``. Both read each image in turn. What is compared is every candidate, also those
below the model's threshold.
"""

import argparse
import statistics
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from ai.datasets.manifest import read_manifest
from ai.datasets.records import split_by_patient
from ai.exam import Exam
from ai.findings import ImageFindings, Mass
from ai.models import open_model
from ai.pixels import file_image
from ai.readers.registry import load_reader
from config.settings import DEFAULT_MODEL


def main() -> None:
    """Read, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--images", type=int, default=0, help="the first so many; 0 takes all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runtime", choices=["openvino", "torch-half"], default="openvino", help="beside torch")
    options = parser.parse_args()
    records, model = read_manifest(options.manifest), open_model(DEFAULT_MODEL)
    parts = split_by_patient(records, 5, 1)
    kept = [record for record in records if parts[record.patient_id] == 0][: options.images or None]
    names = ("torch", options.runtime)
    readers = [load_reader(model, "cpu", options.threads, 0.0, runtime=name) for name in names]
    found: list[list[ImageFindings]] = []
    seconds: list[list[float]] = []
    for record in kept:
        image = file_image(options.manifest.parent / record.path, record.view)
        found.append([])
        seconds.append([])
        for reader in readers:
            began = time.perf_counter()
            found[-1].append(reader.read(Exam((image,))).images[0])
            seconds[-1].append(time.perf_counter() - began)
    told(found, seconds[1:], options.runtime)  # the first image compiles


def told(found: Sequence[Sequence[ImageFindings]], seconds: Sequence[Sequence[float]], runtime: str) -> None:
    """Print how far the findings of two readers lie apart, and what a reading took."""
    alike = [(one, other) for one, other in found if len(one.masses) == len(other.masses)]
    pairs = list(
        chain.from_iterable(zip(_sorted(one.masses), _sorted(other.masses), strict=True) for one, other in alike)
    )
    print(f"{len(found)} images; {len(alike)} with as many candidates, {len(pairs)} in all")
    print(
        f"  greatest difference of an image score: {max(abs(one.score - other.score) for one, other in found)} of 100"
    )
    print(f"  of a candidate's detection: {max(abs(a.detection - b.detection) for a, b in pairs):.6f}")
    print(f"  of a side of its box: {max(np.abs(np.subtract(a.box, b.box)).max() for a, b in pairs)} pixels")
    one, other = (statistics.median(each) for each in zip(*seconds, strict=True))
    ratio = statistics.median(a / b for a, b in seconds)
    print(f"  seconds an image, median: torch {one:.2f}, {runtime} {other:.2f}; median of the ratios {ratio:.2f}")


def _sorted(masses: Iterable[Mass]) -> list[Mass]:
    return sorted(masses, key=lambda mass: (*mass.origin, mass.detection))


if __name__ == "__main__":
    main()
