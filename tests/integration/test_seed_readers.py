"""Each system of the papers as the node's reader: a four-view exam comes in, and its answer lies in the outbox."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from sqlalchemy import Engine

from ai.exam import STANDARD_VIEWS, Exam
from ai.pixels import view_image
from config.mix import ResultKind
from config.settings import Destination
from tests.chain import Chain, FakeReader, a_chain, summary_of, text_of
from tests.doors import phantom_images
from tests.models import a_model, by_brightness, untrained
from tests.seed_networks import centre_patch, network, registered

if TYPE_CHECKING:
    from ai.models import Model
    from ai.readers.base import Reader

EVERYTHING = Destination(
    name="everything",
    ae_title="PACS",
    host="127.0.0.1",
    port=104,
    objects=("SEG", "SR", "CAD_SR", "GSPS", "SC", "PDF", "PMAP"),
)


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


def a_mask_model(
    folder: Path, reader: str, network: str, offset: float, dark: dict[str, float], **card: Any
) -> "Model":
    """Return a model of two folds that mark what is bright."""
    options = {"widths": [1]}
    fold = by_brightness(untrained(network, options), 40, offset)
    architecture = {"network": network, "options": options, **card}
    thresholds = {"mass": 0.5, "candidate": 0.5, **dark}
    return a_model(folder, reader, architecture, thresholds, {"fold-0": fold, "fold-1": fold})


def oulu(folder: Path) -> "Model":
    return a_mask_model(folder, "oulu", "plain_unet", -60, {}, canvas=[256, 256], mean=0.4, std=0.2)


def marita(folder: Path) -> "Model":
    return a_mask_model(folder, "marita", "tile_unet", -30, {"dark": 0.05}, tile=128, reduction=2)


def marita_overlapped(folder: Path) -> "Model":
    dark = {"dark": 0.05}
    return a_mask_model(folder, "marita", "tile_unet", -30, dark, tile=128, reduction=2, overlapped=True)


def agarwal(folder: Path) -> "Model":
    card = {"network": "centre_patch", "stride": 32, "windows": "fast"}
    folds = {"fold-0": centre_patch(8, 1.5), "fold-1": centre_patch(8, 1.4)}
    return a_model(folder, "agarwal", card, {"mass": 0.5, "candidate": 0.5}, folds)


def madsen(folder: Path) -> "Model":
    card = {
        "clip_limit": 3.0,
        "detector": {"network": "bright_box", "canvas": [256, 128], "weights": ["detector.safetensors"]},
        "segmenter": {"network": "bright_mask", "weights": ["segmenter.safetensors"]},
        "classifier": {"network": "contrast", "weights": ["classifier.safetensors"]},
    }
    parts = {
        "detector": network("bright_box", level=0.95, margin=2.0, score=0.8),
        "segmenter": network("bright_mask", slope=20.0, middle=0.8),
        "classifier": network("contrast", slope=1.0, bias=0.0),
    }
    return a_model(folder, "madsen", card, {"mass": 0.3}, parts)


def read_by(model: "Model") -> "Reader":
    from ai.readers.registry import load_reader

    return load_reader(model, "cpu")


@pytest.mark.parametrize("model", [oulu, marita, marita_overlapped, agarwal, madsen])
def test_an_exam_of_four_views_is_answered(tmp_path: Path, engine: Engine, model: Callable[[Path], "Model"]) -> None:
    reader = read_by(model(tmp_path / "model"))
    chain: Chain = a_chain(tmp_path / "node", engine)
    chain.reader = cast("FakeReader", reader)
    chain.close(phantom_images())
    assert chain.worker(destinations=[EVERYTHING]).work_once()
    images = tuple(view_image(image, view) for image, view in zip(phantom_images(), STANDARD_VIEWS, strict=True))
    expected = reader.read(Exam(images))
    assert expected.count > 0
    assert chain.exam.status == "findings"
    [report] = chain.of_kind(ResultKind.SR, EVERYTHING.name)
    assert summary_of(report) == "111242"
    assert "The model is not trained." in text_of(report)
    segmentations = chain.of_kind(ResultKind.SEG, EVERYTHING.name)
    assert sum(len(segmentation.SegmentSequence) for segmentation in segmentations) == expected.count
    maps = 0 if model is madsen else len(STANDARD_VIEWS)  # a detector of regions has none
    assert len(chain.of_kind(ResultKind.PMAP, EVERYTHING.name)) == maps
