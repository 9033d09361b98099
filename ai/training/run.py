"""From a recipe and a data set to a model directory: split, leaks, one network per fold and part, card, figures."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

import torch
from torch import nn

from ai.allocation import keep_freed_memory
from ai.datasets.leaks import check_duplicates, find_duplicates
from ai.datasets.records import Dataset, Record
from ai.datasets.selection import digest_of, digests_of
from ai.errors import InvalidRecipe
from ai.evaluation.detection import HitRule, match, threshold_at
from ai.evaluation.predictions import Prediction, detections, figures_by_set, predict
from ai.models import Model, open_model
from ai.networks.registry import build
from ai.outputs import writable_folder
from ai.readers.registry import load_reader
from ai.training.budget import within
from ai.training.card import OPERATING_FPPI, Content, Provenance, write_card
from ai.training.deal import Dealt, deal, everybody
from ai.training.durable import alone
from ai.training.engine import CHECKPOINT, Examples, Step, check_examples, train_part
from ai.training.final import as_sibling, calibration, check_final, named, note, selection, threshold
from ai.training.known import check_start, check_upon, unknown_of
from ai.training.learners.base import Learner, System
from ai.training.phases import Part, Precision
from ai.training.recipe import Recipe
from ai.training.systems import system_of

RUNS: Final = "runs"
"""Folder of the checkpoints, histories and curves, in the model directory."""


class Watcher(Protocol):
    """What a run tells as it goes."""

    def images(self, what: str, done: int, total: int) -> None:
        """So many images of a task are done."""

    def step(self, fold: int, part: Part, step: Step) -> None:
        """A step of a fold's part is done."""

    def says(self, what: str) -> None:
        """Something that a user should know."""


@dataclass(frozen=True)
class Settings:
    """How a run is made; none of it is in the recipe.

    Attributes
    ----------
    device, threads
        As for :func:`ai.readers.registry.load_reader`.
    precision
        Numbers that networks compute with.
    repeatable
        See :func:`ai.training.engine.train_part`.
    start
        The user's own file or model directory for networks that do not start at random.
    upon
        The finished model that a system is trained upon, where it is: see :attr:`System.upon`.
    final
        The model by the same recipe whose held-out patients are now learnt from too, see :mod:`ai.training.final`; its
        thresholds, calibration and figures go over. None holds patients out.
    folds
        Which to train now; None all. Folds that were trained into the same directory before stay in the model.
    budget
        Examples seen in all by one fold, which the recipe's epochs are scaled to; None takes them as they are.
    skip_unlabelled
        Leave out images of which the set does not say what they show, instead of refusing the set.
    subset
        Train on this part of the publishers' alone; "" takes all.
    evaluate
        Measure the model on the part that is held out.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 0
    precision: Precision = Precision.AUTO
    repeatable: bool = True
    start: Path | None = None
    upon: Model | None = None
    final: Model | None = None
    folds: tuple[int, ...] | None = None
    budget: int | None = None
    skip_unlabelled: bool = False
    subset: str = ""
    evaluate: bool = True


def train(
    recipe: Recipe,
    dataset: Dataset,
    output: Path,
    provenance: Provenance,
    settings: Settings,
    watcher: Watcher,
) -> Path:
    """Train what a recipe says, and leave a model directory; a run that was cut off goes on when it is called again.

    Parameters
    ----------
    recipe
        What to do; all that can be checked without an image is checked first.
    dataset
        Opened by :func:`ai.datasets.registry.open_dataset`.
    output
        Receives card.toml, the weights, and a folder ``runs`` with a folder for each fold and part.
    provenance, settings, watcher
        For the card, for this machine, for the user.

    Returns
    -------
    Path
        The card.

    Raises
    ------
    InvalidRecipe, InvalidDataset, ai.errors.ModelError, ai.errors.Unwritable, ai.errors.RunInProgress
        Before any training.
    ForeignCheckpoint, Diverged
        As :func:`ai.training.engine.train_part`.
    """
    if settings.device.type == "cpu":
        keep_freed_memory(of_any_size=True)
    system = _upon(system_of(recipe), recipe, settings.upon)
    start = _try_start(system, recipe, settings.start)
    folds = _folds(recipe, settings.folds)
    dealt = deal(recipe, dataset, skip_unlabelled=settings.skip_unlabelled, subset=settings.subset)
    notes = list(provenance.notes)
    before = open_model(f"{settings.start}/") if settings.start is not None and settings.start.is_dir() else None
    if settings.final is not None:
        check_upon(settings.final, dealt, recipe.name)
        asked = start if before is None else as_sibling(before, start)
        check_final(recipe, settings.final, asked, settings.budget, dealt.training, settings.upon)
        notes += [note(settings.final, len(dealt.kept)), *unknown_of(settings.final)]
        dealt = everybody(recipe, dataset, skip_unlabelled=settings.skip_unlabelled, subset=settings.subset)
    else:
        if settings.upon is not None:
            check_upon(settings.upon, dealt, recipe.name)
            notes += unknown_of(settings.upon)
        if before is not None:
            notes += filter(None, [check_start(before, dealt, dataset.records, recipe.name), *unknown_of(before)])
    if settings.budget is not None:
        notes.append(f"The model was trained on {settings.budget} examples in all, not as long as its recipe says.")
    provenance = replace(provenance, notes=tuple(dict.fromkeys(notes)))
    writable_folder(output)
    with alone(output):
        _check_pictures(dataset, dealt, recipe, watcher)
        learner = _learner(system, recipe, dataset, dealt, watcher)
        run = _Run(recipe, system, learner, dataset, dealt, output, provenance, settings, watcher, start)
        return run.go(folds)


@dataclass(frozen=True, eq=False)
class _Run:
    recipe: Recipe
    system: System
    learner: Learner
    dataset: Dataset
    dealt: Dealt
    output: Path
    provenance: Provenance
    settings: Settings
    watcher: Watcher
    start: str

    def go(self, folds: Sequence[int]) -> Path:
        """Train the folds, choose a threshold when the recipe has none, measure, and write the card."""
        for path in self.system.carried:
            shutil.copyfile(path, self.output / path.name)
        wanted = [fold for fold in range(self.recipe.split.folds) if self._wanted(fold, folds)]
        for fold in wanted:
            self._examples(fold)  # what a fold lacks is told before another has trained for hours
        trained = {fold: self._fold(fold) for fold in wanted}
        if (final := self.settings.final) is not None:
            figures = {f"{images} of {final.card.name}": each for images, each in final.card.evaluation.items()}
            return self._card(self.output, trained, final.card.thresholds, threshold(final), figures)
        thresholds, how = self._thresholds(trained)
        if not self.settings.evaluate:
            if thresholds is None:
                thresholds, how = {"mass": 0.5}, "not chosen: the model was not evaluated"
            return self._card(self.output, trained, thresholds, how, {})
        asked = thresholds or {"mass": 0.5}
        predictions = self._predict(trained, asked, self.dealt.held_out, "reading the held-out part")
        if thresholds is None:
            thresholds = {"mass": _threshold(predictions)}
        return self._card(self.output, trained, thresholds, how, figures_by_set(predictions))

    def _wanted(self, fold: int, folds: Sequence[int]) -> bool:
        """Tell whether a fold is to be trained now, or was trained before."""
        return fold in folds or all(
            (self.output / self._file(part, fold)).is_file() and (self._folder(part, fold) / CHECKPOINT).is_file()
            for part in self.recipe.parts
        )

    def _folder(self, part: Part, fold: int) -> Path:
        return self.output / RUNS / f"fold-{fold}" / part.role

    def _fold(self, fold: int) -> dict[str, str]:
        """Train all parts of a fold, and return their weights files by role."""
        files = {}
        for part, training, validation in self._examples(fold):
            file = self._file(part, fold)
            train_part(
                self._network(part),
                self.learner.objectives(part),
                part,
                training,
                validation,
                self._folder(part, fold),
                seed=self.recipe.seed,
                device=self.settings.device,
                precision=self.settings.precision,
                repeatable=self.settings.repeatable,
                what={"system": self.recipe.system, "start": self.start, "fold": fold, **self._upon()},
                weights=self.output / file,
                on_step=lambda step, part=part: self.watcher.step(fold, part, step),  # type: ignore[misc]
            )
            files[part.role] = file
        return files

    def _examples(self, fold: int) -> list[tuple[Part, Examples, Examples | None]]:
        """Return a fold's parts, within the budget, with what they learn from and are validated on."""
        learnt, kept = self.dealt.sides(fold, self.recipe.split.folds)
        pairs = [
            (self.learner.examples(part, learnt), None if kept is None else self.learner.examples(part, kept))
            for part in self.recipe.parts
        ]
        parts = self.recipe.parts
        if self.settings.budget is not None:
            sizes = {part.role: len(training) for part, (training, _) in zip(parts, pairs, strict=True)}
            parts = within(parts, self.settings.budget, sizes)
        for part, (training, validation) in zip(parts, pairs, strict=True):
            check_examples(part, training, validation)
        return [(part, *pair) for part, pair in zip(parts, pairs, strict=True)]

    def _network(self, part: Part) -> nn.Module:
        torch.manual_seed(self.recipe.seed)
        network = build(part.network, part.options)
        if part.start != "random":
            self.system.start(network, part, self.settings.start)
        return network

    def _file(self, part: Part, fold: int) -> str:
        carried = [path.name for path in self.system.carried]
        if len(self.recipe.parts) == 1 and not carried:
            return f"fold-{fold}.safetensors"
        stem = f"{part.role}-fold-{fold}"
        names = (f"{stem}{number or ''}.safetensors" for number in range(len(carried) + 1))
        return next(name for name in names if name not in carried)

    def _thresholds(self, trained: Mapping[int, Mapping[str, str]]) -> tuple[Mapping[str, float] | None, str]:
        """Return the smallest detection of a finding, and how it was found; None when the held-out part must tell it."""
        if "mass" in self.recipe.reader.thresholds:
            return {}, "the recipe's"
        rule = f"the lowest with at most {OPERATING_FPPI} false marks per image (centre in box)"
        if self.recipe.split.folds == 1:
            return None, f"{rule} on the held-out part itself, since there are no inner folds"
        predictions: list[Prediction] = []
        for fold, files in trained.items():
            _, kept = self.dealt.sides(fold, self.recipe.split.folds)
            what = f"reading the validation images of fold {fold}"
            predictions += self._predict({fold: files}, {"mass": 0.5}, kept or [], what)
        return {"mass": _threshold(predictions)}, f"{rule} on the validation images of the folds, each read by its own"

    def _predict(
        self,
        trained: Mapping[int, Mapping[str, str]],
        thresholds: Mapping[str, float],
        records: Sequence[Record],
        what: str,
    ) -> list[Prediction]:
        """Read images with some folds in a folder of its own: the model's card is written once, when all is known."""
        with TemporaryDirectory(dir=self.output) as name:
            folder = Path(name)
            for path in self.system.carried:
                shutil.copyfile(path, folder / path.name)
            for file in (file for files in trained.values() for file in files.values()):
                shutil.copyfile(self.output / file, folder / file)
            self._card(folder, trained, thresholds, "", {})
            reader = load_reader(open_model(f"{folder}/"), str(self.settings.device), self.settings.threads, 0.0)
            on_image = _counter(self.watcher, what, len(records))
            return predict(reader, self.dataset.folder, records, on_image, scored=True)

    def _card(
        self,
        folder: Path,
        trained: Mapping[int, Mapping[str, str]],
        thresholds: Mapping[str, float],
        how: str,
        evaluation: Mapping[str, Any],
    ) -> Path:
        roles = {part.role: [files[part.role] for files in trained.values()] for part in self.recipe.parts}
        return write_card(
            folder,
            self.provenance,
            Content(
                reader=self.system.reader,
                statement=self.system.statement,
                architecture=self.system.tables(self.recipe, roles, self.learner.measured),
                thresholds={**thresholds, **self.recipe.reader.thresholds},
                start=self._begun(),
                training=self.dealt.training,
                plan=self._plan(sorted(trained), how),
                weights=[path.name for path in self.system.carried]
                + [file for each in roles.values() for file in each],
                evaluation=evaluation,
                calibration=None if self.settings.final is None else calibration(self.settings.final),
                selection=() if self.settings.final is None else selection(self.settings.final),
            ),
        )

    def _begun(self) -> str:
        """Return what all networks of the model started from, those of the model that it is trained upon, too."""
        upon = self.settings.upon
        if upon is None or not self.system.carried:
            return self.start
        return f"{upon.card.name}: {upon.card.training.start}; {self.recipe.parts[0].role}: {self.start}"

    def _plan(self, folds: Sequence[int], how: str) -> dict[str, Any]:
        """Return the whole recipe, with its split as ``mammonode evaluate --validation`` wants it."""
        split, final = self.recipe.split, self.settings.final
        return {
            "recipe": self.recipe.name,
            **self.recipe.model_dump(mode="json", exclude={"name", "split"}),
            "split": {
                **self._held_out(),
                "inner_folds": split.folds,
                "trained_folds": folds,
                "file": split.file.name if split.file else None,
            },
            **self._upon(),
            "final_of": None if final is None else named(final),
            "budget": self.settings.budget,
            "precision": self.settings.precision.value,
            "threshold": how,
        }

    def _held_out(self) -> dict[str, Any]:
        """Return who was held out as a card tells it: nobody, of these patients, or a part."""
        split, records = self.recipe.split, self.dataset.records
        if self.settings.final is not None:
            all_of_them = {record.patient_id for record in records}
            of_sets = digests_of(all_of_them, records)
            return {"everybody": digest_of(all_of_them), **({"everybody_of": of_sets} if of_sets else {})}
        of_sets = digests_of(self.dealt.kept, records)
        known = {"seed": split.seed, "folds": split.parts, "fold": split.part, "held_out": digest_of(self.dealt.kept)}
        return {**known, **({"held_out_of": of_sets} if of_sets else {})}

    def _upon(self) -> dict[str, str]:
        """Return which model this one is trained upon, where it is."""
        model = self.settings.upon
        return {} if model is None else {"upon": named(model)}


def _try_start(system: System, recipe: Recipe, path: Path | None) -> str:
    """Return what the networks start from, after starting each once: a file that does not fit is refused before all."""
    words = [
        "random" if part.start == "random" else system.start(build(part.network, part.options), part, path)
        for part in recipe.parts
    ]
    if path is not None and set(words) == {"random"}:
        raise InvalidRecipe(f"{recipe.name}: all parts start at random, and a file to start from was given")
    if len(words) == 1:
        return words[0]
    return "; ".join(f"{part.role}: {word}" for part, word in zip(recipe.parts, words, strict=True))


def _upon(system: System, recipe: Recipe, model: Model | None) -> System:
    """Return the system as it is trained upon a model, where it is."""
    if system.upon is None:
        if model is not None:
            raise InvalidRecipe(f"{recipe.name} is not trained upon another model: leave out --upon")
        return system
    if model is None:
        raise InvalidRecipe(f"{recipe.name} is trained upon a finished model: name it with --upon")
    if recipe.split.folds != 1:
        raise InvalidRecipe(f"{recipe.name}: split.folds: upon a finished model there is one")
    return system.upon(model)


def _folds(recipe: Recipe, wanted: Sequence[int] | None) -> Sequence[int]:
    for fold in wanted or ():
        if not 0 <= fold < recipe.split.folds:
            raise InvalidRecipe(f"{recipe.name}: there is no fold {fold} of {recipe.split.folds}, the first is 0")
    return range(recipe.split.folds) if wanted is None else wanted


def _check_pictures(dataset: Dataset, dealt: Dealt, recipe: Recipe, watcher: Watcher) -> None:
    """Refuse masks that do not fit, and a picture that stands under two patients of different parts or folds."""
    used = (*dealt.training, *dealt.held_out)
    shown = replace(dataset, records=used)
    pairs = find_duplicates(shown, _counter(watcher, "looking for pictures that stand there twice", len(used)))
    held_out = {r.patient_id: recipe.split.folds for r in dealt.held_out}
    check_duplicates(pairs, {**dealt.fold, **held_out})
    for pair in pairs:
        watcher.says(f"one picture under two patients of one part: {pair}")


def _learner(system: System, recipe: Recipe, dataset: Dataset, dealt: Dealt, watcher: Watcher) -> Learner:
    on_image = _counter(watcher, "preparing images", len(dealt.training))
    return system.learner(dataset.folder, dealt.training, recipe, on_image)


def _counter(watcher: Watcher, what: str, total: int) -> Callable[[], None]:
    done = 0

    def on_image() -> None:
        nonlocal done
        done += 1
        watcher.images(what, done, total)

    return on_image


def _threshold(predictions: Sequence[Prediction]) -> float:
    """Return the lowest threshold with few enough false marks per image, rounded up to three digits."""
    events = [match(HitRule.CENTRE, detections(p)) for p in predictions]
    return math.ceil(1000 * threshold_at(events, OPERATING_FPPI)) / 1000
