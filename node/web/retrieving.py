"""Retrieving a study by WADO-RS from another service into the store, through the one intake."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from uuid import uuid4

from ai.words import counted
from config.settings import WebService
from node.errors import BadRequest, QueryFailed, SourceUnknown
from node.intake import Receiver
from node.records import Origin
from node.user_agent import UserAgent
from node.web.media import parse_media_types
from node.web.multipart import Reader
from node.web.receiving import Receiving

MOST_PARTS: Final = 100_000


class Retrieval:
    """Gets studies from the sources of the settings.

    Parameters
    ----------
    agent
        Asks.
    sources
        Whom it may ask.
    intake
        Takes what comes.
    incoming
        Folder for what is being received.
    """

    def __init__(self, agent: UserAgent, sources: Sequence[WebService], intake: Receiver, incoming: Path) -> None:
        self._agent = agent
        self._sources = tuple(sources)
        self._intake = intake
        self._incoming = incoming

    def retrieve(self, url: str) -> int:
        """Retrieve a study and return how many instances were stored.

        Raises
        ------
        SourceUnknown, DestinationUnreachable, QueryFailed
            When it cannot be had, or not as it should be.
        """
        source = next((each for each in self._sources if url.startswith(each.url.rstrip("/") + "/")), None)
        if source is None:
            raise SourceUnknown
        origin = Origin("", "", source.url, uuid4().hex[:8])
        receiving = Receiving(self._intake, self._incoming, origin, None, MOST_PARTS)

        def take(content_type: str, data: Iterator[bytes]) -> None:
            kinds = parse_media_types(content_type)
            boundary = kinds[0].parameters.get("boundary", "") if kinds else ""
            reader = Reader(boundary, receiving.part, MOST_PARTS)
            for chunk in data:
                reader.feed(chunk)
            if not reader.complete:
                raise BadRequest("the multipart body has no end")

        try:
            self._agent.retrieve(source, url, take)
        except BadRequest as error:
            raise QueryFailed("what it sent is not multipart/related") from error
        finally:
            receiving.close()
        if receiving.outcomes.failed:
            raise QueryFailed(f"{counted(len(receiving.outcomes.failed), 'instance')} of it could not be stored")
        return len(receiving.outcomes.stored)
