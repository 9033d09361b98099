"""Pictures for people, made by workers beside their results; they go when the images or the results go."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, delete, insert, select

from storage.tables import previews, removals


class PreviewKind(StrEnum):
    """What a picture shows."""

    #: The image as people look at it, as it is hung.
    VIEW = "view"
    #: The map of the reader's probabilities, over the whole image, as it is hung.
    MAP = "map"
    #: The image as the reader saw it after its preprocessing.
    PREPARED = "prepared"


@dataclass(frozen=True)
class Preview:
    """A picture.

    Attributes
    ----------
    job_id, image_uid, kind
        What it shows, of which image, made by which job.
    path
        Relative to the store.
    sideways, upright
        Whether it was mirrored left to right, top to bottom, for hanging.
    """

    job_id: int
    image_uid: str
    kind: PreviewKind
    path: str
    sideways: bool
    upright: bool


def announce_previews(connection: Connection, job_id: int, made: Sequence[Preview]) -> list[str]:
    """Index the pictures that a job is about to write, and return the paths of its earlier runs' that nobody knows any more."""
    known = set(connection.execute(select(previews.c.path).where(previews.c.job_id == job_id)).scalars())
    connection.execute(delete(previews).where(previews.c.job_id == job_id))
    for preview in made:
        connection.execute(insert(previews).values(vars(preview)))
    return sorted(known - {preview.path for preview in made})


def previews_of(connection: Connection, job_id: int) -> list[Preview]:
    """Return the pictures of a job that were not removed."""
    query = (
        select(previews)
        .where(previews.c.job_id == job_id, ~select(removals.c.path).where(removals.c.path == previews.c.path).exists())
        .order_by(previews.c.image_uid, previews.c.kind)
    )
    return [Preview(**{**row, "kind": PreviewKind(row["kind"])}) for row in connection.execute(query).mappings()]
