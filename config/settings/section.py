"""What every table of the settings file is made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

AETitle = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x5B\x5D-\x7E]([\x20-\x5B\x5D-\x7E]{0,15})$", max_length=16)
]
"""PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no control characters."""
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
A_FILE = "the name of a file"
FileName = Annotated[str, A_FILE]
"""A key whose systemd credential is the file itself."""
Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
"""Of a web service; without credentials, which stand beside it."""


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
