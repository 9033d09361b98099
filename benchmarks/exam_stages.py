"""Seconds per stage of reading one four-view exam on this machine, by torch and by OpenVINO: decode, read, encode.

The exam is the full-size phantom, so that everyone can repeat it.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ai.exam import STANDARD_VIEWS
from ai.models import open_model
from ai.readers.base import Reader
from ai.readers.registry import load_reader
from benchmarks.values import US, Value
from config.mix import ObjectMix
from config.settings import DEFAULT_MODEL
from node.analysis import Source, analyse, header_of, usable_cores
from node.phantom import phantom_exam
from node.results.answer import Answer, ImageAnswer, answer_status
from node.results.edition import Edition
from node.results.encode import encode, to_bytes


def values(repeats: int) -> Iterator[Value]:
    """Yield the seconds of each stage of one exam: decode, read, encode."""
    model = open_model(DEFAULT_MODEL)
    readers = {
        US: load_reader(model, "auto", 0),
        "torch-half": load_reader(model, "auto", 0, runtime="torch-half"),
        "openvino": load_reader(model, "cpu", 0, runtime="openvino"),
    }
    with tempfile.TemporaryDirectory() as folder:
        sources = []
        for view, image in zip(STANDARD_VIEWS, phantom_exam(7).images, strict=True):
            path = Path(folder, f"{view}.dcm")
            image.save_as(path, enforce_file_format=True)
            sources.append(Source(str(image.SOPInstanceUID), path, view))
        for repeat in range(repeats + 1):  # the first one warms up
            for name, reader in readers.items():
                stages = measure(reader, sources)
                if not repeat:
                    continue
                for stage, seconds in stages.items():
                    yield Value(f"exam on {readers[US].device}: {stage}", "s", name, seconds)
                if name == US:
                    yield Value(f"an exam on {readers[US].device} by the model that ships", "s", US, stages["total"])


def measure(reader: Reader, sources: Sequence[Source]) -> dict[str, float]:
    """Return seconds by stage of one pass."""
    begin = time.perf_counter()
    analysis = analyse(reader, sources, threads=usable_cores())
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
