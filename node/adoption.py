"""Adoption: images that lie in the store and are not in the database come in once more, as if just received.

After a backup was restored these are the images that came since it was taken: nothing that was accepted is lost.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

from config.policy import Watermark
from node.errors import NodeError
from node.intake import Intake
from node.records import Origin
from node.telemetry import logger
from node.views import ImageKind
from storage.database import reading
from storage.errors import StorageError
from storage.files import InstanceStore
from storage.index import known_paths

log = logger("adoption")

ORIGIN = Origin(calling_ae="", called_ae="", address="adopted", association="")
"""Who sent them was in the database alone."""
NO_WATERMARK = Watermark(max_used_fraction=1, min_free_bytes=0)
"""A file that is adopted takes no room."""


@dataclass(frozen=True)
class Adopted:
    """Numbers of files that were adopted, and of those that could not be."""

    adopted: int
    unreadable: int


def adopt(engine: Engine, store: InstanceStore, accepts: frozenset[ImageKind]) -> Adopted:
    """Let every image in the store that the database does not know come in, at the time at which its file was written.

    Parameters
    ----------
    engine
        The database; its ``serve`` must not run, which would close exams that have come in by half.
    accepts
        Kinds of image that the chosen reader reads.
    """
    adopted = unreadable = 0
    # What came later under the same UID (rule R6) is told apart from the first copies, which so come first.
    for area in ("instances", "conflicts"):
        for path in _unknown(engine, store, area):
            try:
                _receive(engine, store, accepts, path)
                adopted += 1
            except (NodeError, StorageError, OSError) as error:
                unreadable += 1
                log.error(  # noqa: TRY400 - the cause is in the message
                    "cannot be adopted", path=path, cause=str(error)
                )
    log.info("adopted what the database did not know", number=adopted, unreadable=unreadable)
    return Adopted(adopted, unreadable)


def _receive(engine: Engine, store: InstanceStore, accepts: frozenset[ImageKind], path: str) -> None:
    file = store.resolve(path)
    written = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    temp = store.incoming / f"{secrets.token_hex(8)}.dcm"
    os.link(file, temp)
    Intake(store, engine, NO_WATERMARK, accepts, lambda: written).receive(temp, None, ORIGIN)


def _unknown(engine: Engine, store: InstanceStore, area: str) -> Iterator[str]:
    for folder in sorted((store.root / area).glob("*/*")):
        paths = [str(file.relative_to(store.root)) for file in _by_age(folder.rglob("*.dcm"))]
        with reading(engine) as connection:
            known = known_paths(connection, paths)
        yield from (path for path in paths if path not in known)


def _by_age(files: Iterable[Path]) -> list[Path]:
    return sorted(files, key=lambda file: (file.stat().st_mtime, file))
