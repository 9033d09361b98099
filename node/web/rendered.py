"""Rendered resources of WADO-RS: what people see, as JPEG or PNG (PS3.18 8.7.4, 10.4.1.1.3, 10.4.1.1.4)."""

import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from node.errors import BadRequest, NoSuchResource, NotRenderable
from node.web.access import Guarded, Scope
from node.web.decoding import Decoders
from node.web.media import JPEG, PNG, chosen
from node.web.multipart import Piece, Related
from node.web.wado import INSTANCE, LEVELS, Retrieve
from storage.catalogue import Held
from storage.files import InstanceStore

FORMATS: Final = {JPEG: ".jpg", PNG: ".png"}
THUMBNAIL: Final = (256, 256)
LARGEST: Final = 8192
"""Pixels of a side that is asked for."""
MOST_PICTURES: Final = 100
"""Instances of a study or a series that are rendered in one answer."""
FUNCTIONS: Final = {"linear": "LINEAR", "linear-exact": "LINEAR_EXACT", "sigmoid": "SIGMOID"}

_NUMBER: Final = r"[+-]?[0-9]{1,9}(?:\.[0-9]{0,9})?"


class Render:
    """Draws what is held.

    Parameters
    ----------
    retrieve
        Knows it.
    store
        Where the files are.
    decoders
        Draw.
    """

    def __init__(self, retrieve: Retrieve, store: InstanceStore, decoders: Decoders) -> None:
        self._retrieve = retrieve
        self._store = store
        self._decoders = decoders

    def routes(self) -> list[BaseRoute]:
        """Return the resources."""
        frame = f"{INSTANCE}/frames/{{frame}}"
        rendered = [Guarded(f"{level}/rendered", self.rendered, needs=Scope.READ) for level in (*LEVELS, frame)]
        return [
            *rendered,
            *(Guarded(f"{level}/thumbnail", self.thumbnail, needs=Scope.READ) for level in (*LEVELS, frame)),
        ]

    def rendered(self, request: Request) -> Response:
        """Give a frame, or the first one of each instance, as it is meant to be seen."""
        found = self._retrieve.find(request)
        kind, how = chosen(request, tuple(FORMATS)), asked(request)
        how |= {"format": FORMATS[kind.name]}
        number = self._frame(request, found)
        if "instance" in request.path_params:
            return Response(self._picture(found[0], number, how), 200, None, kind.name)
        pictures = [data for each in self._with_pictures(found) if (data := self._try(each, how)) is not None]
        if not pictures:
            raise NotRenderable
        body = Related(kind.name, (Piece(kind.name, (data,)) for data in pictures))
        return Response(b"".join(body), 200, None, body.content_type)

    def thumbnail(self, request: Request) -> Response:
        """Give a small picture of what there is: of a study or a series, the first instance that has one."""
        found = self._retrieve.find(request)
        kind, how = chosen(request, tuple(FORMATS)), asked(request)
        how = {"size": THUMBNAIL} | how | {"format": FORMATS[kind.name]}
        number = self._frame(request, found)
        if "instance" in request.path_params:
            return Response(self._picture(found[0], number, how), 200, None, kind.name)
        for each in self._with_pictures(found):
            if (data := self._try(each, how)) is not None:
                return Response(data, 200, None, kind.name)
        raise NotRenderable

    @staticmethod
    def _with_pictures(found: list[Held]) -> list[Held]:
        return found[:MOST_PICTURES]

    def _try(self, each: Held, how: dict[str, Any]) -> bytes | None:
        try:
            return self._picture(each, 1, how)
        except NotRenderable:
            return None

    def _picture(self, each: Held, number: int, how: dict[str, Any]) -> bytes:
        return self._decoders.picture(self._store.resolve(each.path), number, **how)

    @staticmethod
    def _frame(request: Request, found: list[Held]) -> int:
        text = request.path_params.get("frame", "1")
        if not re.fullmatch(r"[0-9]{1,7}", text):
            raise BadRequest("not a frame number")
        if not 1 <= int(text) <= (found[0].frames or 1):
            raise NoSuchResource(f"frames 1 to {found[0].frames or 1} are here")
        return int(text)


def asked(request: Request) -> dict[str, Any]:
    """Return how a picture is wanted (PS3.18 8.3.5.1): viewport, window, quality.

    Raises
    ------
    BadRequest
        When that cannot be understood.
    """
    parameters = request.query_params
    how: dict[str, Any] = {"quality": 90}
    if quality := parameters.get("quality"):
        if not re.fullmatch(r"[0-9]{1,3}", quality) or not 1 <= int(quality) <= 100:
            raise BadRequest("quality is 1 to 100")
        how["quality"] = int(quality)
    if viewport := parameters.get("viewport"):
        parts = viewport.split(",")
        if len(parts) not in {2, 6} or not all(re.fullmatch(r"[0-9]{0,5}", part) for part in parts):
            raise BadRequest("viewport is width,height or width,height,left,top,width,height")
        if not all(part and 1 <= int(part) <= LARGEST for part in parts[:2]):
            raise BadRequest(f"a viewport has sides of 1 to {LARGEST} pixels")
        how |= {"size": (int(parts[0]), int(parts[1])), "enlarge": True}
        if len(parts) == 6:
            left, top, width, height = (int(part or 0) for part in parts[2:])
            if not width or not height:
                raise BadRequest("the region of a viewport is empty")
            how["region"] = (left, top, width, height)
    if window := parameters.get("window"):
        match = re.fullmatch(rf"({_NUMBER}),({_NUMBER}),([a-z-]+)", window.strip(), re.IGNORECASE)
        if not match or float(match[2]) <= 0 or match[3].lower() not in FUNCTIONS:
            raise BadRequest("window is centre,width,function")
        how["window"] = (float(match[1]), float(match[2]), FUNCTIONS[match[3].lower()])
    return how
