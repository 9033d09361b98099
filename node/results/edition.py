"""An answer as one object mix shows it: what every encoder of a result object is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ai.exam import View
from config.mix import ObjectMix, ResultKind
from node.results.answer import Answer, ImageAnswer
from node.results.source import plain
from node.results.uids import ObjectUIDs

Pictures = Mapping[str, NDArray[np.uint8]]
"""SOP Instance UID → the image as people look at it: shape (rows, columns), 0 to 255, dense tissue bright."""

SERIES: Final[Mapping[ResultKind, tuple[int, str]]] = MappingProxyType(
    {
        ResultKind.SR: (9000, "AI mammography report"),
        ResultKind.CAD_SR: (9001, "AI mammography CAD"),
        ResultKind.SEG: (9100, "AI masses"),
        ResultKind.GSPS: (19100, "AI outlines"),
        ResultKind.SC: (29100, "AI overview"),
        ResultKind.SC_VIEW: (39100, "AI outlines"),
        ResultKind.PDF: (49100, "AI summary"),
        ResultKind.PMAP: (59100, "AI mass map"),
        ResultKind.REJECTION: (69100, "AI results withdrawn"),
    }
)
"""Series Number of the first revision's first object, far from those that modalities use, and Series Description."""

REPORTS: Final = frozenset({ResultKind.SR, ResultKind.CAD_SR})
"""Kinds that stay in their series as the exam goes on (rule R2)."""


@dataclass(frozen=True, eq=False)
class Edition:
    """What an encoder of result objects is given.

    Attributes
    ----------
    answer
        The answer, without the findings below the mix's threshold.
    mix
        The object mix.
    uids
        Names of the objects.
    pictures
        The images that could be decoded.
    """

    answer: Answer
    mix: ObjectMix
    uids: ObjectUIDs
    pictures: Pictures = field(default_factory=dict)

    @classmethod
    def of(
        cls, answer: Answer, mix: ObjectMix, *, installation: str, settings_digest: str, pictures: Pictures
    ) -> "Edition":
        """Return the edition of an answer for a mix.

        Parameters
        ----------
        installation
            Random identifier of this installation, 64 characters at most.
        settings_digest
            Digest of every setting that changes the objects' content, the mix apart (rule R1).
        """
        # Named after the whole answer, so that a finding has one Tracking UID at all destinations.
        uids = ObjectUIDs.of(answer, installation, settings_digest, mix.digest)
        return cls(answer.shown_above(mix.threshold), mix, uids, pictures)

    def series_number(self, kind: ResultKind, image: ImageAnswer | None = None) -> int:
        """Return the Series Number of an object; those of a series that grows keep theirs."""
        first, _ = SERIES[kind]
        if kind in REPORTS:
            return first
        return first + 10 * (self.answer.revision - 1) + (self.answer.images.index(image) if image else 0)

    def series_description(self, kind: ResultKind, view: View | None = None) -> str:
        """Return the Series Description (LO, 64 characters): the site's words or ours, view, revision, research use.

        The revision stands early: OHIF's list shows some 23 characters.
        """
        words = plain(self.mix.series_descriptions.get(kind) or SERIES[kind][1])[:24]
        shown = f" {view}" if view else ""
        revision = "" if kind in REPORTS else f" rev {self.answer.revision}"
        return f"{words}{shown}{revision}, research use only"
