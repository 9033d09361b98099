"""Seconds per stage of reading one four-view exam on this machine: decode, read, encode; medians of repeats.

Run: python benchmarks/exam_stages.py [--repeats N] [--device cpu] [--threads 2]
The exam is the full-size phantom, so that everyone can repeat it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ai.exam import STANDARD_VIEWS
from ai.models import open_model
from ai.readers.base import Reader
from ai.readers.registry import load_reader
from config.mix import ObjectMix
from node.analysis import Source, analyse, header_of
from node.phantom import phantom_exam
from node.results.answer import Answer, ImageAnswer, answer_status
from node.results.edition import Edition
from node.results.encode import encode, to_bytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    reader = load_reader(open_model("mass-fpn-boxes"), options.device, options.threads)
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for view, image in zip(STANDARD_VIEWS, phantom_exam(7).images, strict=True):
            path = Path(folder, f"{view}.dcm")
            image.save_as(path, enforce_file_format=True)
            sources.append(Source(str(image.SOPInstanceUID), path, view))
        rows = [measure(reader, sources) for _ in range(options.repeats + 1)][1:]  # the first one warms up
    print(f"four views of 2560x2048, {reader.device}, {options.repeats} repeats, seconds")
    for stage in rows[0]:
        values = [row[stage] for row in rows]
        print(f"{stage:8} median {statistics.median(values):6.2f}   from {min(values):6.2f} to {max(values):6.2f}")


def measure(reader: Reader, sources: Sequence[Source]) -> dict[str, float]:
    """Return seconds by stage of one pass."""
    begin = time.perf_counter()
    analysis = analyse(reader, sources)
    read = time.perf_counter()
    findings = analysis.findings
    if findings is None:
        raise SystemExit(f"not read: {analysis.not_read}")
    answer = Answer(
        exam="benchmark",
        revision=1,
        status=answer_status(findings, complete=True),
        created_at=datetime.now(UTC),
        images=tuple(ImageAnswer(header_of(source.path), source.view) for source in sources),
        model=reader.model,
        findings=findings,
    )
    edition = Edition.of(answer, ObjectMix(), installation="benchmark", settings_digest="", pictures={})
    for result in encode(edition):
        to_bytes(result.dataset)
    end = time.perf_counter()
    return {**analysis.seconds, "encode": end - read, "total": end - begin}


if __name__ == "__main__":
    main()
