"""The models folder: a model comes in whole and checked, or not at all, and never in another one's place."""

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from typing import Final
from uuid import uuid4

from ai.errors import (
    AIError,
    InvalidCard,
    MissingModel,
    MissingWeights,
    ModelError,
    ModelExists,
    NotInstalled,
    UnreadablePackage,
)
from ai.models import CARD, SHIPPED, Model, read_card

NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,63}", re.ASCII)
"""A card's name that can be a folder's, and stand in the settings."""

_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # the last: it has a password
_CHUNK = 2**20


def verify(model: Model) -> list[AIError]:
    """Try a model as a node would: its reader, its weights' digests, its networks with these tensors.

    Parameters
    ----------
    model
        A model directory.

    Returns
    -------
    list
        What is wrong: each weights file that is not the card's; when all are, the first thing that its reader refuses.
    """
    from ai.readers.registry import load_reader  # noqa: PLC0415 (who only lists models needs no torch)

    try:
        model.require_reader()
    except AIError as error:
        return [error, *model.faults()]
    if faults := list(model.faults()):
        return [*faults]
    try:
        load_reader(model, "cpu")
    except AIError as error:
        return [error]
    return []


def install(source: Path, into: Path) -> tuple[Model, bool]:
    """Copy a model into the models folder, under its card's name, once the copy is verified.

    Only the card and the weights that it names are copied. The model appears under its name in one step; what an
    install that was killed leaves behind is called ``.installing-…`` and never taken for a model.

    Parameters
    ----------
    source
        A model directory, or a ZIP of one: the card is at its top or in its only folder.
    into
        The models folder; made when it is not there.

    Returns
    -------
    Model, bool
        The installed model, and whether it is new: the same one may be there already.

    Raises
    ------
    NotInstalled, ModelExists
        With every fault; nothing was changed.
    """
    stage = into / f".installing-{uuid4().hex}"
    try:
        stage.mkdir(parents=True)
        with _opened(source) as root:
            model = _staged(root, stage)
            target = into / model.card.name
            if target.exists() or (SHIPPED / target.name).exists():
                return _there_already(target, model), False
            _copy(root, stage, [part.file for part in model.card.weights])
        faults = [str(fault) for fault in verify(model)]
        if not faults:
            _put(stage, target)
    except OSError as error:
        faults = [f"{source} to {into}: {error.strerror}"]
    except (InvalidCard, MissingModel, MissingWeights, UnreadablePackage) as error:
        faults = [str(error)]
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    if faults:
        raise NotInstalled("; ".join(faults).replace(str(stage), str(source)))
    return Model(target, model.card), True


@contextmanager
def _opened(source: Path) -> Iterator[Traversable]:
    """Open a model directory or a ZIP of one."""
    if source.is_dir():
        yield source
        return
    try:
        with zipfile.ZipFile(source) as package:
            names = [PurePosixPath(name) for name in package.namelist()]
            tops = [name.parent for name in names if name.name == CARD and len(name.parts) <= 2]
            if len(tops) != 1:
                raise UnreadablePackage(f"{source}: {len(tops)} files {CARD} at its top or one folder below, not one")
            yield zipfile.Path(package, "" if tops == [PurePosixPath()] else f"{tops[0]}/")
    except _BROKEN as error:
        raise UnreadablePackage(f"{source}: {error}") from error


def _staged(root: Traversable, stage: Path) -> Model:
    """Copy the card, and return the model that is to be."""
    if not root.joinpath(CARD).is_file():
        raise MissingModel(str(stage))
    _copy(root, stage, [CARD])
    model = Model(stage, read_card(stage / CARD))
    if not NAME.fullmatch(model.card.name):
        raise InvalidCard(f"{stage / CARD}: name: {model.card.name!r} can be no folder's; take letters, digits, . _ -")
    return model


def _copy(root: Traversable, stage: Path, files: Iterable[str]) -> None:
    for file in files:
        if not root.joinpath(file).is_file():
            raise MissingWeights(str(stage / file))
        with root.joinpath(file).open("rb") as original, (stage / file).open("wb") as copy:
            shutil.copyfileobj(original, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())


def _there_already(target: Path, model: Model) -> Model:
    """Return what is installed when it is the same model, and whole."""
    place = target if target.exists() else SHIPPED / target.name
    try:
        installed = Model(place, read_card(place / CARD))
        same = installed.digest == model.digest and not any(installed.faults())
    except ModelError:
        same = False
    if not same:
        raise ModelExists(str(place))
    return installed


def _put(stage: Path, target: Path) -> None:
    """Let the model appear under its name."""
    try:
        stage.rename(target)
    except OSError as error:
        if not target.exists():
            raise
        raise ModelExists(str(target)) from error
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
