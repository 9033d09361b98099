"""What the Mammography CAD SR tells of each mass: TID 4003 to 4006, 4011, 4019 and 4021."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from ai.calibration import Level
from ai.exam import ViewPosition
from ai.findings import ImageFindings, LengthUnit, Mass, Match, ModelIdentity
from config.mix import FindingCodes
from node.results import cad_codes as cad
from node.results import codes
from node.results.answer import Answer
from node.results.appraisal import percent
from node.results.cad_items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    HAS_PROPERTIES,
    INFERRED_FROM,
    SELECTED_FROM,
    by_reference,
    code,
    container,
    coordinates,
    number,
    text,
    uid,
)
from node.results.geometry import thinned
from node.results.seg import tracking_identifier
from node.results.source import plain
from node.results.uids import ObjectUIDs

SCORES = "Suspicion scores run from 0 to 100 and are not probabilities."


@dataclass(frozen=True, eq=False)
class FindingsWriter:
    """Writes the masses of an answer.

    The suspicion score has no row of its own: 111012 Certainty of Finding and 111047 Probability of cancer are
    percentages with a meaning that it does not have (rule R4), 111071 CAD Operating Point only exists for what may be
    left unshown, and TID 4006 is not extensible. It stands in words, in the Impression Description (TID 4002 row 5).

    Attributes
    ----------
    answer, uids
        The answer and the names of its objects.
    scheme
        Coding scheme of findings.
    places
        SOP Instance UID → position of the image's entry in the tree.
    """

    answer: Answer
    uids: ObjectUIDs
    scheme: FindingCodes
    places: Mapping[str, tuple[int, ...]]

    def impressions(self) -> Iterator[Dataset]:
        """Yield one impression for each pair of matched masses and for each mass without a match (TID 4003)."""
        found = self.answer.findings
        if found is None:
            return
        pairs = [pair for match in found.matches if len(pair := self._pair(match, found.images)) == 2]
        for pair in pairs:
            yield self._impression(pair, self._composite(pair))
        taken = {id(mass) for pair in pairs for _, mass in pair}
        for image in found.images:
            for mass in image.masses:
                if id(mass) not in taken:
                    yield self._impression([(image, mass)], self._finding(CONTAINS, image, mass))

    @staticmethod
    def _pair(match: Match, images: Iterable[ImageFindings]) -> list[tuple[ImageFindings, Mass]]:
        numbers = {ViewPosition.CC: match.cc, ViewPosition.MLO: match.mlo}
        return [
            (image, mass)
            for image in images
            if image.view.laterality is match.laterality
            for mass in image.masses
            if mass.number == numbers[image.view.position]
        ]

    def _impression(self, masses: list[tuple[ImageFindings, Mass]], below: Dataset) -> Dataset:
        told = [f"{tracking_identifier(image.view, mass)}: suspicion score {mass.suspicion}" for image, mass in masses]
        sizes = sorted({mass.size.rule.value if mass.size.rule else "none, no spacing" for _, mass in masses})
        words = f"{', '.join(told)}. {SCORES} Sizes by: {', '.join(sizes)}."
        return container(
            INFERRED_FROM,
            cad.IMPRESSION,
            [rendering_intent(), *impression_body(CONTAINS, words, self.answer.model), below],
        )

    def _composite(self, pair: list[tuple[ImageFindings, Mass]]) -> Dataset:
        """Return a mass that two views show (TID 4004, 4005)."""
        return code(
            CONTAINS,
            cad.COMPOSITE_FEATURE,
            cad.in_scheme(cad.MASS, self.scheme),
            [
                rendering_intent(),
                code(HAS_PROPERTIES, cad.COMPOSITE_TYPE, cad.RELATED_SPATIALLY),
                code(HAS_PROPERTIES, cad.SCOPE, cad.ON_MULTIPLE_IMAGES),
                *algorithm(HAS_PROPERTIES, self.answer.model),
                *(self._finding(INFERRED_FROM, image, mass) for image, mass in pair),
            ],
        )

    def _finding(self, relationship: str, image: ImageFindings, mass: Mass) -> Dataset:
        """Return a mass as one image shows it (TID 4006)."""
        place = self.places[image.uid]
        return code(
            relationship,
            cad.SINGLE_IMAGE_FINDING,
            cad.in_scheme(cad.DENSITY, self.scheme),
            [
                rendering_intent(),
                text(HAS_OBS_CONTEXT, cad.TRACKING_IDENTIFIER, tracking_identifier(image.view, mass)),
                uid(HAS_OBS_CONTEXT, cad.TRACKING_UID, self.uids.tracking(image.uid, mass.number)),
                *algorithm(HAS_PROPERTIES, self.answer.model),
                *self._probability(mass),
                coordinates(HAS_PROPERTIES, cad.CENTER, "POINT", centre(mass), [by_reference(SELECTED_FROM, place)]),
                coordinates(
                    HAS_PROPERTIES, cad.OUTLINE, "POLYLINE", thinned(mass.contour), [by_reference(SELECTED_FROM, place)]
                ),
                *self._sizes(mass),
            ],
        )

    def _probability(self, mass: Mass) -> Iterator[Dataset]:
        """Yield the probability of cancer (TID 4006), where one may be told (rule R4)."""
        value = percent(self.answer, Level.FINDING, mass.suspicion)
        if value is not None:
            yield number(HAS_PROPERTIES, codes.PROBABILITY, value, codes.PERCENT)

    def _sizes(self, mass: Mass) -> Iterator[Dataset]:
        """Yield axes and area (TID 4011 rows 4 and 5), whose units are lengths and surfaces only: pixels have no row."""
        size = mass.size
        if size.unit is not LengthUnit.MILLIMETRE:
            return
        length, surface = codes.LENGTH[size.unit], codes.SURFACE[size.unit]
        values = (
            (codes.LONG_AXIS, size.long_axis, length),
            (codes.SHORT_AXIS, size.short_axis, length),
            (codes.AREA, size.area, surface),
        )
        for name, value, unit in values:
            if round(value, 2) > 0:
                yield number(HAS_PROPERTIES, cad.in_scheme(name, self.scheme), round(value, 2), unit)


def scores(answer: Answer) -> list[str]:
    """Return the scores of exam, breasts and images as sentences."""
    found = answer.findings
    if found is None:
        return []
    return [
        f"Exam: suspicion score {found.score}.",
        *(f"{breast.laterality} breast: suspicion score {breast.score}." for breast in found.breasts),
        *(f"{image.view}: suspicion score {image.score}." for image in found.images),
    ]


def rendering_intent() -> Dataset:
    """Return the wish that what is told be shown (CID 6034)."""
    return code(HAS_CONCEPT_MOD, cad.RENDERING_INTENT, cad.PRESENTATION_REQUIRED)


def impression_body(relationship: str, words: str, model: ModelIdentity) -> list[Dataset]:
    """Return words and whose they are (TID 4002 rows 5 and 11)."""
    return [text(relationship, cad.IMPRESSION_DESCRIPTION, plain(words)), *algorithm(relationship, model)]


def algorithm(relationship: str, model: ModelIdentity) -> list[Dataset]:
    """Return name, version and digest of the model (TID 4019 rows 1 to 3)."""
    return [
        text(relationship, cad.ALGORITHM_NAME, plain(model.name)),
        text(relationship, cad.ALGORITHM_VERSION, plain(model.version)),
        text(relationship, cad.ALGORITHM_PARAMETERS, f"digest={model.digest}"),
    ]


def centre(mass: Mass) -> NDArray[np.float64]:
    """Return x and y of the centre of the mass's pixel that is nearest to its centroid, so that it lies in the mass."""
    pixels = np.argwhere(mass.mask)
    nearest = pixels[np.square(pixels - pixels.mean(axis=0)).sum(axis=1).argmin()]
    row, column = nearest + mass.origin
    return np.array([column + 0.5, row + 0.5])
