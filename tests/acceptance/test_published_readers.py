"""Each published system put to work by one line of the settings: DCMTK sends an exam, DCMTK receives the answer.

The networks are the real ones with random weights: as small as their options make them, and where these leave them as
they are (InceptionV3; RetinaNet and three ResNet50) on as few pixels as they take. Where an output says nothing by itself
when it is random, its last bias is set, so that there are findings.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydicom import Dataset
from typer.testing import CliRunner

from node.cli import app
from node.demo.pacs import errors_in, received_for
from tests.acceptance.nodes import Site, a_site, an_exam, dcmtk_storescp, patiently, study_of
from tests.chain import summary_of, text_of
from tests.models import a_model, by_brightness, untrained
from tests.pacs import a_free_port
from tests.peers import require_program

if TYPE_CHECKING:
    from ai.models import Model

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


def a_mask_model(
    folder: Path, reader: str, network: str, offset: float, dark: dict[str, float], **card: Any
) -> "Model":
    """Return a model of two folds that mark what is bright."""
    options = {"widths": [1]}
    fold = by_brightness(untrained(network, options), 40, offset)
    architecture = {"network": network, "options": options, **card}
    return a_model(
        folder, reader, architecture, {"mass": 0.5, "candidate": 0.5, **dark}, {"fold-0": fold, "fold-1": fold}
    )


def oulu(folder: Path) -> "Model":
    return a_mask_model(folder, "oulu", "plain_unet", -60, {}, canvas=[256, 256], mean=0.4, std=0.2)


def marita(folder: Path) -> "Model":
    return a_mask_model(folder, "marita", "tile_unet", -30, {"dark": 0.05}, tile=128, reduction=2)


def marita_overlapped(folder: Path) -> "Model":
    return a_mask_model(folder, "marita", "tile_unet", -30, {"dark": 0.05}, tile=128, reduction=2, overlapped=True)


def agarwal(folder: Path) -> "Model":
    """Return InceptionV3 (44 MB, the cheapest of the paper's three) that takes every patch for a mass."""
    network = untrained("inception_v3_patch").half()
    set_bias(network.head[-1], [0.0, 2.0])  # type: ignore[index]
    card = {"network": "inception_v3_patch", "stride": 224, "windows": "fast"}
    return a_model(folder, "agarwal", card, {"mass": 0.5, "candidate": 0.5}, {"fold-0": network})


def madsen(folder: Path) -> "Model":
    """Return the three networks (213 MB) with a detector that is sure of its largest boxes, be there what may."""
    canvas = [64, 32]
    small = {"side": 32, "widths": [8, 8, 16, 16, 32], "layers": 1, "heads": 1}
    parts = {
        "detector": untrained("retinanet_resnet50_fpn", {"canvas": canvas}).half(),
        "segmenter": untrained("transres_unet", small).half(),
        "classifier": untrained("three_branch_resnet50").half(),
    }
    scores = parts["detector"].network.head.classification_head.cls_logits  # type: ignore[union-attr]
    scores.weight.data.zero_()  # type: ignore[union-attr, operator]
    set_bias(scores, [*[-6.0] * 17, 1.0])
    card = {
        "clip_limit": 3.0,
        "detector": {
            "network": "retinanet_resnet50_fpn",
            "options": {"canvas": canvas},
            "canvas": canvas,
            "weights": ["detector.safetensors"],
        },
        "segmenter": {
            "network": "transres_unet",
            "options": small,
            "side": 32,
            "weights": ["segmenter.safetensors"],
        },
        "classifier": {"network": "three_branch_resnet50", "weights": ["classifier.safetensors"]},
    }
    return a_model(folder, "madsen", card, {"mass": 0.3}, parts)


def set_bias(layer: Any, values: list[float]) -> None:
    layer.bias.data = layer.bias.data.new_tensor(values)


MODELS: Mapping[str, Callable[[Path], "Model"]] = {
    "oulu": oulu,
    "marita": marita,
    "marita, overlapped": marita_overlapped,
    "agarwal": agarwal,
    "madsen": madsen,
}


@dataclass(frozen=True)
class Case:
    """A node with one of the models, and the exam that it was sent."""

    site: Site
    images: list[Dataset]

    @property
    def study(self) -> str:
        return study_of(self.images)

    @property
    def files(self) -> list[Path]:
        """What storescp has kept."""
        return self.site.archives["storescp"].files(self.study)


def installed(source: Path, models: Path) -> str:
    """Install a model, take its directory away, and return the settings that name it."""
    told = CliRunner().invoke(app, ["models", "install", str(source), "--into", str(models)])
    assert told.exit_code == 0, told.output
    source.rename(source.with_name("elsewhere"))
    return f'model = "a-model-of-oulu"\nmodels_folder = "{models}"'


NAMES = [pytest.param(name, marks=pytest.mark.slow if name == "marita, overlapped" else []) for name in MODELS]


@pytest.fixture(scope="module")
def cases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Case]]:
    """Nodes that start, read and answer side by side, those that a test asks for."""
    asked = {item.callspec.params["name"] for item in request.session.items if request.path == item.path}  # type: ignore[attr-defined]
    with ExitStack() as stack:
        cases = {}
        for name, make in MODELS.items():
            if name not in asked:
                continue
            folder, port = tmp_path_factory.mktemp("site"), a_free_port()
            line = f'model = "{make(folder / "model").folder}"'
            if name == "oulu":
                line = installed(folder / "model", folder / "models")
            site = stack.enter_context(a_site(folder, reader=line, ports={"storescp": port}))
            stack.enter_context(dcmtk_storescp(site.archives["storescp"], port))
            site.start("up")
            cases[name] = Case(site, an_exam(name.upper()))
        for case in cases.values():
            [process] = case.site.processes
            assert patiently(lambda process=process: process.has_logged("ready"))  # type: ignore[misc]
            case.site.send(case.images)
        yield cases


@pytest.mark.parametrize("name", NAMES)
def test_an_exam_of_four_views_is_answered(cases: Mapping[str, Case], name: str) -> None:
    case = cases[name]
    exam = case.site.answered(case.study, destination="storescp")
    assert exam.status == "findings"
    got = received_for(case.study, case.files)
    assert got.faults == []
    [report] = got.reports
    assert summary_of(report) == "111242"
    assert f"a-model-of-{name.partition(',')[0]}" in text_of(report)
    assert "The model is not trained." in text_of(report)
    sources = {str(image.SOPInstanceUID) for image in case.images}
    for segmentation in got.segmentations:
        [reference] = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert reference.ReferencedSOPInstanceUID in sources
    shown = CliRunner().invoke(app, ["show", exam.uid, "--config", str(case.site.config)], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"Exam {exam.uid}, revision 1: answered, findings" in " ".join(shown.output.split())


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_is_valid(cases: Mapping[str, Case], name: str) -> None:
    require_program("dciodvfy")
    case = cases[name]
    case.site.answered(case.study, destination="storescp")
    assert case.files
    assert [error for file in case.files for error in errors_in(file)] == []
