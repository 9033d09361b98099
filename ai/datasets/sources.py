"""Where images come from: licence, whom to name, and what their figures cannot be trusted for."""

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ai.errors import InvalidDataset
from ai.words import first_fault

SHEET: Final = "source.toml"
"""Beside a manifest; see :class:`Sheet`."""
NOT_STATED: Final = "not stated"

Known = Literal["cbis-ddsm", "cdd-cesm", "inbreast", "m-synth", "phantoms"]


@dataclass(frozen=True)
class Source:
    """A source of images.

    Attributes
    ----------
    name
        For model cards and tables.
    licence, attribution
        As its publishers want them told; ``not stated`` when that is not known.
    caveats
        What a user of the images, or of a model made of them, must know; a sentence each.
    """

    name: str
    licence: str = NOT_STATED
    attribution: str = NOT_STATED
    caveats: tuple[str, ...] = ()


SOURCES: Final[dict[Known, Source]] = {
    "cbis-ddsm": Source(
        "CBIS-DDSM",
        "CC BY 3.0",
        "Sawyer-Lee R, Gimenez F, Hoogi A, Rubin D. Curated Breast Imaging Subset of Digital Database for Screening "
        "Mammography (CBIS-DDSM). The Cancer Imaging Archive, 2016. doi:10.7937/K9/TCIA.2016.7O02S9CY",
        (
            "Digitised film, not digital mammography: what is learned or measured here need not hold there.",
            "Every woman has a finding: how often healthy women are marked cannot be measured.",
            "The outlines of the masses were made by a program from rough ones.",
        ),
    ),
    "cdd-cesm": Source(
        "CDD-CESM",
        "CC BY 4.0 (not confirmed)",
        "Khaled R, Helal M, Alfarghaly O, et al. Categorized Digital Database for Low energy and Subtracted Contrast "
        "Enhanced Spectral Mammography images (CDD-CESM). The Cancer Imaging Archive, 2021. doi:10.7937/29kw-ae92",
        (
            "Contrast mammography for diagnosis, not screening; its subtracted images are no ordinary mammograms.",
            "Regions have no kind of their own: some are skin, calcifications or lymph nodes.",
            "Copies that circulate have one woman on both sides of their split: split by patient.",
        ),
    ),
    "inbreast": Source(
        "INbreast",
        "INbreast research agreement",
        "Moreira IC, Amaral I, Domingues I, et al. INbreast: toward a full-field digital mammographic database. "
        "Acad Radiol 2012; 19(2): 236-248. doi:10.1016/j.acra.2011.09.014",
        (
            "For research by its own agreement: neither the images nor weights made of them may be passed on.",
            "It has no pathology: malignancy is taken from the BI-RADS category.",
            "One hospital, one make of detector.",
        ),
    ),
    "m-synth": Source(
        "M-SYNTH",
        "CC0 1.0",
        "M-SYNTH, US FDA DIDSR",
        ("Synthetic images: an engineering check, which says nothing about patients.",),
    ),
    "phantoms": Source(
        "synthetic phantoms",
        "free for any use",
        "Mammonode",
        ("Synthetic phantoms: an engineering check, which says nothing about patients.",),
    ),
}
"""By the word that a sheet names them by."""


def caveats_known(attribution: str) -> tuple[str, ...]:
    """Return the caveats of the sources whose DOI an attribution names: what a card tells that has none of its own."""
    dois = ((known, known.attribution.partition("doi:")[2]) for known in SOURCES.values())
    return tuple(caveat for known, doi in dois if doi and doi in attribution for caveat in known.caveats)


class Sheet(BaseModel):
    """The file ``source.toml``.

    Attributes
    ----------
    source
        One of :data:`SOURCES`, whose words then stand wherever the sheet has none.
    name, licence, attribution
        Of the images.
    caveats
        Beside those of the source.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Known | None = None
    name: str = ""
    licence: str = ""
    attribution: str = ""
    caveats: tuple[str, ...] = ()


def read_sheet(folder: Path) -> Source:
    """Return what the sheet in a folder says; without one, the folder's name and nothing else.

    Raises
    ------
    InvalidDataset
        When it cannot be read or a key is not known; it is named.
    """
    base, path = Source(folder.resolve().name), folder / SHEET
    if not path.is_file():
        return base
    try:
        sheet = Sheet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path}: {error}") from error
    except ValidationError as error:
        raise InvalidDataset(f"{path}: {first_fault(error)}") from error
    known = SOURCES[sheet.source] if sheet.source else base
    return replace(
        known,
        name=sheet.name or known.name,
        licence=sheet.licence or known.licence,
        attribution=sheet.attribution or known.attribution,
        caveats=(*known.caveats, *sheet.caveats),
    )
