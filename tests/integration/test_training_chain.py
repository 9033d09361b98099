"""``make model``: the commands that make the model that ships, on drawn images; and a training that is killed."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from ai.errors import InvalidDataset
from ai.models import CARD, open_model
from ai.training.recipe import open_recipe
from config.settings import DEFAULT_MODEL
from tests.training_runs import FPN, invoke, mammonode, manifest, train

__all__ = ["manifest"]

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
    pytest.mark.usefixtures("one_thread"),
]

ROOT = Path(__file__).parents[2]
# The three recipes of the model that ships, with few pixels.
SMALL = """
extends = "{}"
[split]
parts = 2
[parts.network]
batch = 2
[parts.network.examples]
canvas = [{}, 64]
[parts.network.phases.all]
epochs = 1
[reader.thresholds]
candidate = 0.001
"""
RECIPES = {"SECOND": ("mass-fpn-lite2", 64), "FIRST": ("mass-fpn/boxes", 96), "PAIR": ("mass-member", 96)}

# Killed by the kernel, as for want of memory, in the midst of the third epoch of four.
KILLED = """
import os, signal, sys
from node.cli import app, training
def step(self, fold, part, step):
    if (step.epoch, step.step) == (3, 2):
        os.kill(os.getpid(), signal.SIGKILL)
training._Bars.step = step
app(sys.argv[1:])
"""


def planned(**variables: object) -> list[list[str]]:
    """Return the commands that make model would give now, each without its program."""
    told = [f"{name}={value}" for name, value in variables.items()]
    command = ["make", "--dry-run", "--assume-old=.venv/.ready", "--no-print-directory", "model", *told]
    # Not as a part of the make that runs the tests, which would pass on its options, and count in what it says.
    alone = {name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [shlex.split(line) for line in done.stdout.splitlines() if not line.startswith("make:")]
    assert all(Path(line[0]).name == "mammonode" for line in lines)
    return [line[1:] for line in lines]


def test_the_model_that_ships_is_made_by_the_commands_of_make(manifest: Path, tmp_path: Path) -> None:
    folds, model = tmp_path / "folds.csv", tmp_path / "model"
    mammonode("folds", manifest, "-o", folds, "--parts", 2)
    files = {name: tmp_path / f"{name.lower()}.toml" for name in RECIPES}
    for name, (recipe, rows) in RECIPES.items():
        files[name].write_text(SMALL.format(recipe, rows), encoding="utf-8")
    variables = files | {"DATA": manifest, "FOLDS": folds, "MODEL": model, "DEVICE": "cpu", "OPTIONS": "--threads 1"}
    left = planned(**variables)
    assert [command[0] for command in left] == ["train"] * 3 + ["calibrate", "evaluate"]
    mammonode(*left[0])
    assert planned(**variables) == left[1:]  # what is finished is not trained again
    for command in left[1:3]:
        mammonode(*command)
    assert planned(**variables) == left[3:]
    refused = invoke(*left[3]).exception  # taken, and then: what has learnt so little has marked no cancer
    assert isinstance(refused, InvalidDataset)
    assert "a calibration of finding scores needs some with cancer and some without" in str(refused)
    mammonode(*left[4])
    assert planned(**variables) == []
    made = open_model(f"{model / 'pair'}/").card
    assert [each.file for each in made.weights] == ["fold-0.safetensors", "network-fold-0.safetensors"]
    assert made.architecture["encoder"] == open_model(DEFAULT_MODEL).card.architecture["encoder"]
    assert (model / "pair" / "card" / "card.md").is_file()


def test_make_names_recipes_that_there_are(tmp_path: Path) -> None:
    commands = planned(DATA="set.csv", MODEL=tmp_path / "model")
    assert [open_recipe(command[1]).name for command in commands[:3]] == [recipe for recipe, _ in RECIPES.values()]
    [one, *_] = planned(DATA="set.csv", MODEL=tmp_path / "model", RECIPE="mass-fpn/lite0")
    assert one[:5] == ["train", "mass-fpn/lite0", "set.csv", "--output", f"{tmp_path / 'model' / 'mass-fpn-lite0'}"]


def test_a_training_that_is_killed_goes_on_to_the_weights_of_one_that_was_not(manifest: Path, tmp_path: Path) -> None:
    from ai.training.engine import CHECKPOINT

    recipe, output = tmp_path / "fpn.toml", tmp_path / "killed"
    recipe.write_text(FPN.replace("epochs = 1", "epochs = 4"), encoding="utf-8")
    told = ("train", recipe, manifest, "-o", output, "--no-evaluation", "--device", "cpu", "--threads", "1")
    died = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, *told], stderr=subprocess.DEVNULL, check=False, timeout=300
    )
    assert died.returncode == -signal.SIGKILL
    assert (output / "runs" / "fold-0" / "network" / CHECKPOINT).exists()
    assert not (output / CARD).exists()
    train(recipe, manifest, output, "--no-evaluation")
    train(recipe, manifest, tmp_path / "uncut", "--no-evaluation")
    one, two = (load_file(folder / "fold-0.safetensors") for folder in (tmp_path / "uncut", output))
    assert {key: tensor.tobytes() for key, tensor in one.items()} == {k: tensor.tobytes() for k, tensor in two.items()}
