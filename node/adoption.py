"""Adoption: images that lie in the store and are not in the database come in once more, as if just received.

After a backup was restored these are the images that came since it was taken: nothing that was accepted is lost. What the
database knows and the store has not any more is told: it has to be sent once more.
"""

import os
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Final

from sqlalchemy import Engine

from config.policy import Watermark
from node.errors import NodeError
from node.intake import Intake
from node.records import Origin
from node.telemetry import logger
from node.views import ImageKind
from storage.database import reading
from storage.errors import StorageError
from storage.exams import has_exam
from storage.files import InstanceStore, Kept
from storage.index import known_paths
from storage.removals import kept_paths, newest_paths

log = logger("adoption")

ORIGIN = Origin(calling_ae="", called_ae="", address="adopted", association="")
"""Who sent them was in the database alone."""
NO_WATERMARK = Watermark(max_used_fraction=1, min_free_bytes=0)
"""A file that is adopted takes no room."""


IMAGES: Final = 20
STUDIES: Final = 5
"""That came last: a restored half lacks these, if anything."""
ON_ITS_WAY: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Adopted:
    """What was found.

    Attributes
    ----------
    adopted, unreadable
        Files that were adopted, and that could not be.
    gone
        Files of images that the database knows, which the store has not, although nothing has removed them.
    """

    adopted: int
    unreadable: int
    gone: int = 0


@dataclass(frozen=True)
class Apart:
    """How store and database differ, as far as one sees at a glance.

    Attributes
    ----------
    unknown
        Files that came last and are not in the database: it is older than the store, or another's.
    gone
        Images that came last of which the store has no file: it is older than the database, or another's.
    looked_at
        Images.
    """

    unknown: int
    gone: int
    looked_at: int


def apart(engine: Engine, store: InstanceStore, now: datetime) -> Apart:
    """Look whether what came last is in store and database both; the node may run."""
    # What is on its way has its file before its row.
    files = [kept.path for kept in store.newest(STUDIES) if kept.written_at < now - ON_ITS_WAY]
    with reading(engine) as connection:
        listed = newest_paths(connection, IMAGES)
        known = known_paths(connection, files)
    gone = sum(store.size_of(path) is None for path in listed)
    return Apart(len(set(files) - known), gone, len({*listed, *files}))


def adopt(engine: Engine, store: InstanceStore, accepts: frozenset[ImageKind]) -> Adopted:
    """Let every image in the store that the database does not know come in, at the time at which its file was written.

    Parameters
    ----------
    engine
        The database; its ``serve`` must not run, which would close exams that have come in by half.
    accepts
        Kinds of image that the chosen reader reads.
    """
    adopted = unreadable = gone = 0
    present: set[str] = set()
    # What came later under the same UID (rule R6) is told apart from the first copies, which so come first.
    for area in ("instances", "conflicts"):
        for kept in _unknown(engine, store, area, present):
            try:
                _receive(engine, store, accepts, kept)
                if area == "conflicts":
                    _tidy(engine, store, kept)
                adopted += 1
            except (NodeError, StorageError, OSError) as error:
                unreadable += 1
                log.error(  # noqa: TRY400 - the cause is in the message
                    "cannot be adopted", path=kept.path, cause=str(error)
                )
    for exam, paths in _gone(engine, store, present):
        gone += len(paths)
        log.error("files are gone", exam=exam, number=len(paths), path=paths[0])
    if strange := list(_results_of_no_exam(engine, store)):
        log.warning("results of no exam", number=len(strange), path=strange[0])
    log.info("adopted what the database did not know", number=adopted, unreadable=unreadable, gone=gone)
    return Adopted(adopted, unreadable, gone)


def _receive(engine: Engine, store: InstanceStore, accepts: frozenset[ImageKind], kept: Kept) -> None:
    temp = store.incoming / f"{secrets.token_hex(8)}.dcm"
    os.link(store.resolve(kept.path), temp)
    Intake(store, engine, NO_WATERMARK, accepts, lambda: kept.written_at).receive(temp, None, ORIGIN)


def _tidy(engine: Engine, store: InstanceStore, kept: Kept) -> None:
    """Remove a copy that has come in under another path: in a folder one that is set aside has a new name each time."""
    with reading(engine) as connection:
        if kept.path not in known_paths(connection, [kept.path]):
            store.remove(kept.path)


def _unknown(engine: Engine, store: InstanceStore, area: str, present: set[str]) -> Iterator[Kept]:
    for _, series in groupby(store.listed(area), lambda kept: kept.path.split("/")[:3]):
        files = list(series)
        with reading(engine) as connection:
            known = known_paths(connection, [kept.path for kept in files])
        present.update(kept.path for kept in files)
        yield from (kept for kept in files if kept.path not in known)


def _results_of_no_exam(engine: Engine, store: InstanceStore) -> Iterator[str]:
    """Yield our own objects of studies without an exam, with whose results they could go."""
    for study, files in groupby(store.listed("results"), lambda kept: kept.path.split("/")[1]):
        with reading(engine) as connection:
            known = has_exam(connection, study)
        if not known:
            yield from (kept.path for kept in files)


def _gone(engine: Engine, store: InstanceStore, present: Collection[str]) -> Iterator[tuple[str | None, list[str]]]:
    """Yield exams, and None for what belongs to none, with the paths that should be there and are not."""
    with reading(engine) as connection:
        missing = [(exam, path) for exam, path in kept_paths(connection) if path not in present]
    for exam, rows in groupby(missing, lambda row: row[0]):
        # What was adopted just now was not listed under its name; of a bucket each is a question.
        if paths := [path for _, path in rows if store.size_of(path) is None]:
            yield exam, paths
