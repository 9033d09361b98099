"""What every table of the settings file is made of."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def written(pattern: str, words: str) -> AfterValidator:
    """Return what takes texts of one form alone; whose text is another is told the form in words, and not the text."""
    form = re.compile(pattern)

    def check(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(words)
        return text

    return AfterValidator(check)


_AE_TITLE: Final = r"[\x21-\x5B\x5D-\x7E][\x20-\x5B\x5D-\x7E]{0,15}"
_AE_WORDS: Final = "must have 1 to 16 ASCII characters, no backslash, and no space at its beginning"
AETitle = Annotated[str, written(_AE_TITLE, _AE_WORDS)]
"""PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no control characters."""
AETitleOrNone = Annotated[str, written(f"({_AE_TITLE})?", _AE_WORDS)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
A_FILE = "the name of a file"
FileName = Annotated[str, A_FILE]
"""A key whose systemd credential is the file itself."""
_URL: Final = r"https?://[^\s/?#@]+(/[^\s?#]*)?"
_URL_WORDS: Final = "must begin with http:// or https://, then a host, with neither credentials nor a query"
Url = Annotated[str, written(_URL, _URL_WORDS)]
"""Of a web service; without credentials, which stand beside it."""
UrlOrNone = Annotated[str, written(f"({_URL})?", _URL_WORDS)]


def _can_be_looked_up(text: str) -> str:
    try:
        text.encode("idna")  # as socket does
    except UnicodeError:
        raise ValueError(f"{text!r} is no name of a host") from None
    return text


Host = Annotated[str, AfterValidator(_can_be_looked_up)]
"""A name or an address, or nothing."""


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")
