"""Training runs by the command line, on drawn images and canvases of 64 by 64."""

from pathlib import Path
from typing import Any

import cv2
import pytest
from typer.testing import CliRunner

from ai.datasets.manifest import read_manifest
from tests.drawn import a_data_set

FPN = """
extends = "mass-fpn/random"
[split]
parts = 2
[parts.network]
batch = 2
[parts.network.examples]
canvas = [64, 64]
[parts.network.phases.all]
epochs = 1
"""


def twelve_patients(folder: Path) -> Path:
    """Write a set of drawn images, no two of which are one picture, and return its manifest."""
    path = a_data_set(folder / "set", 12)
    for number, record in enumerate(read_manifest(path)):  # or they would be one picture under several patients
        file = str(path.parent / record.file)
        pixels = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        pixels[pixels == 120] = 60 + 9 * number
        if not record.boxes:
            cv2.circle(pixels, (22, 40 + 7 * number), 10, (30,), -1)
        cv2.imwrite(file, pixels)
    return path


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return twelve_patients(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "fpn.toml"
    path.write_text(FPN, encoding="utf-8")
    return path


def invoke(*arguments: object) -> Any:
    """Run the command line in this process."""
    from node.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def mammonode(*arguments: object) -> str:
    """Run the command line in this process, and return what it wrote on stdout."""
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.stdout)


def train(recipe: object, data: Path, output: Path, *options: object) -> None:
    """Train on one thread of the processor."""
    mammonode("train", recipe, data, "-o", output, "--device", "cpu", "--threads", 1, *options)


class Cut(Exception):
    """The power went out."""
