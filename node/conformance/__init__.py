"""The DICOM conformance statement (PS3.2), printed from a configuration and from the program's own tables."""

import re
from collections.abc import Iterator

from config.settings import Settings
from node.conformance.annexes import annexes
from node.conformance.configuration import configuration
from node.conformance.introduction import cover, introduction, overview
from node.conformance.networking import entity, interfaces, model
from node.conformance.support import character_sets, media, security
from node.conformance.web import web_services


def statement(settings: Settings) -> str:
    """Return the statement for a configuration, in Markdown; secrets and places on this machine are not shown."""
    begin = "\n\n".join([*cover(settings), *overview()])
    body = "\n\n".join(
        [
            *introduction(),
            *model(settings),
            *entity(settings),
            *interfaces(settings),
            *configuration(settings),
            *web_services(settings),
            *media(),
            *character_sets(),
            *security(settings),
            *annexes(),
        ]
    )
    return "\n\n".join([begin, *_contents(f"{begin}\n\n{body}"), body]) + "\n"


def _contents(text: str) -> Iterator[str]:
    """Yield the table of contents."""
    yield "## 2 Table of Contents"
    headings = re.findall(r"^##(#{0,2}) (\d\S* .+)$", text, re.MULTILINE)
    yield "\n".join(f"{'  ' * len(depth)}- [{title}](#{_anchor(title)})" for depth, title in headings)


def _anchor(title: str) -> str:
    """Return the anchor that Markdown viewers give a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
