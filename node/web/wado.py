"""WADO-RS: retrieving instances, metadata, frames, bulk data and pictures (PS3.18 10.4)."""

import re
import secrets
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.uid import UID
from sqlalchemy import Engine
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from node.errors import BadRequest, Gone, NoSuchResource, NotAcceptable, UnparsableDataset
from node.web.access import Guarded, Scope
from node.web.addresses import base, uids
from node.web.decoding import Decoders
from node.web.dicom_json import (
    Model,
    attribute,
    bulk_element,
    element_value,
    json_array,
    open_dataset,
    to_model,
    xml_bytes,
)
from node.web.frames import PIXEL_DATA, Frames
from node.web.media import (
    DICOM,
    DICOM_JSON,
    DICOM_XML,
    IMAGES,
    NATIVE,
    OCTETS,
    Form,
    chosen,
    frame_form,
    instance_form,
)
from node.web.multipart import Piece, Related, file_range
from storage.catalogue import Held, held
from storage.database import reading
from storage.files import InstanceStore

STUDY: Final = "/studies/{study}"
SERIES: Final = f"{STUDY}/series/{{series}}"
INSTANCE: Final = f"{SERIES}/instances/{{instance}}"
LEVELS: Final = (STUDY, SERIES, INSTANCE)

MOST_FRAMES: Final = 10_000
"""Frames that one request may name."""


class Retrieve:
    """Gives what is held.

    Parameters
    ----------
    engine
        The catalogue.
    store
        Where the files are.
    decoders
        Decode where a form is asked for that is not stored.
    """

    def __init__(self, engine: Engine, store: InstanceStore, decoders: Decoders) -> None:
        self._engine = engine
        self._store = store
        self._decoders = decoders

    def routes(self) -> list[BaseRoute]:
        """Return the resources."""
        resources: list[tuple[str, Any]] = [(level, self.instances) for level in LEVELS]
        resources += [(f"{level}/metadata", self.metadata) for level in LEVELS]
        resources += [(f"{INSTANCE}/frames/{{frames}}", self.frames)]
        resources += [(f"{INSTANCE}/bulkdata/{{path:path}}", self.bulk_data)]
        return [Guarded(path, answer, needs=Scope.READ) for path, answer in resources]

    def instances(self, request: Request) -> Response:
        """Give instances as DICOM files, as they are stored or in Explicit VR Little Endian."""
        found = self.find(request)
        form = instance_form(request, single="instance" in request.path_params)
        syntaxes = [form.syntax_of(each.transfer_syntax_uid) for each in found]
        if not all(syntaxes):
            raise NotAcceptable("an instance cannot be given in the transfer syntax that is asked for")
        wanted = list(zip(found, map(str, syntaxes), strict=True))
        # The first one is made ready before anything is said: then a failure has a status.
        ready = self._file(*wanted[0])
        if not form.multipart:
            headers = {"Content-Length": str(ready.path.stat().st_size)}
            kind = f"{DICOM}; transfer-syntax={wanted[0][1]}"
            return StreamingResponse(ready.given(), 200, headers, kind, BackgroundTask(ready.discard))
        body = Related(DICOM, self._pieces(wanted, ready))
        return StreamingResponse(iter(body), 200, None, body.content_type, BackgroundTask(ready.discard))

    def _pieces(self, wanted: Sequence[tuple[Held, str]], ready: "Ready") -> Iterator[Piece]:
        for number, (each, syntax) in enumerate(wanted):
            file = ready if number == 0 else self._file(each, syntax)
            yield Piece(f"{DICOM}; transfer-syntax={syntax}", file.given())

    def _file(self, each: Held, syntax: str) -> "Ready":
        path = self._store.resolve(each.path)
        if syntax == each.transfer_syntax_uid:
            return Ready(path)
        made = self._store.incoming / f"given-{secrets.token_hex(8)}.dcm"
        try:
            self._decoders.native(path, made)
        except Exception:
            made.unlink(missing_ok=True)
            raise
        return Ready(made, temporary=True)

    def metadata(self, request: Request) -> Response:
        """Give the attributes of instances, long values by their addresses."""
        found = self.find(request)
        form = chosen(request, (DICOM_JSON, "application/json", DICOM_XML))
        models = self._models(request, found)
        # As above.
        models = chain((next(models),), models)
        if form.name == DICOM_XML:
            body = Related(DICOM_XML, (Piece(DICOM_XML, (xml_bytes(each),)) for each in models))
            return StreamingResponse(iter(body), 200, None, body.content_type)
        return StreamingResponse(json_array(models), 200, None, form.name)

    def _models(self, request: Request, found: Sequence[Held]) -> Iterator[Model]:
        for each in found:
            try:
                dataset = open_dataset(self._store.resolve(each.path))
            except UnparsableDataset:
                yield _identity(each)
                continue
            yield self._model(request, each, dataset)
            # A large header has kept its place until what was made of it was given, too.
            del dataset

    def _model(self, request: Request, each: Held, dataset: Dataset) -> Model:
        address = f"{base(request)}/studies/{each.study_uid}/series/{each.series_uid}/instances/{each.uid}"
        model = to_model(dataset, lambda path: f"{address}/bulkdata/{path}")
        # What is in another character set in the file is in UTF-8 here (PS3.18 F.2).
        model |= attribute("SpecificCharacterSet", "ISO_IR 192")
        model |= attribute("AvailableTransferSyntaxUID", each.transfer_syntax_uid)
        return dict(sorted({**_identity(each), **model}.items()))

    def frames(self, request: Request) -> Response:
        """Give frames, as they are stored or native."""
        [each] = self.find(request)
        path = self._store.resolve(each.path)
        available = Frames.of(path, open_dataset(path))
        numbers = _numbers(request.path_params["frames"], available.number)
        return self._given(request, each, available, numbers)

    def _given(self, request: Request, each: Held, available: Frames, numbers: Sequence[int]) -> Response:
        stored = each.transfer_syntax_uid
        form = frame_form(request, single=len(numbers) == 1, stored=stored)
        syntax = _frame_syntax(form, stored)
        decoded = syntax != stored and UID(stored).is_encapsulated
        if decoded and available.is_luminance:
            raise NotAcceptable("decoded frames would be RGB, and the metadata say that they are not")
        kind = f"{IMAGES.get(syntax, OCTETS)}; transfer-syntax={syntax}"

        def frame(number: int) -> Iterator[bytes]:
            if decoded or (available.size is None and not available.syntax.is_encapsulated):
                return iter((self._decoders.frame(available.path, number),))
            return available.stored(number)

        first = frame(numbers[0])
        begin = next(first, b"")  # before anything is said: then a failure has a status

        rest = (frame(number) for number in numbers[1:])
        if not form.multipart:
            return StreamingResponse(chain((begin,), first), 200, None, kind)
        body = Related(kind.partition(";")[0], (Piece(kind, data) for data in chain((chain((begin,), first),), rest)))
        return StreamingResponse(iter(body), 200, None, body.content_type)

    def bulk_data(self, request: Request) -> Response:
        """Give one long value, to which the metadata point."""
        [each] = self.find(request)
        path = self._store.resolve(each.path)
        dataset = open_dataset(path)
        element = bulk_element(dataset, request.path_params["path"])
        if element is None:
            raise NoSuchResource
        syntax = UID(each.transfer_syntax_uid)
        if element.tag == PIXEL_DATA and not (syntax.is_transfer_syntax and not syntax.is_encapsulated):
            available = Frames.of(path, dataset)
            return self._given(request, each, available, range(1, available.number + 1))
        form = frame_form(request, single=True, stored=NATIVE)
        if isinstance(element, RawDataElement) and element.value is None:
            data, size = file_range(path, element.value_tell, element.length), element.length
        else:
            value = element_value(dataset, element)
            data, size = iter((value,)), len(value)
        if not form.multipart:
            return StreamingResponse(data, 200, {"Content-Length": str(size)}, OCTETS)
        body = Related(OCTETS, [Piece(f"{OCTETS}; transfer-syntax={NATIVE}", data)])
        return StreamingResponse(iter(body), 200, None, body.content_type)

    def find(self, request: Request) -> list[Held]:
        """Return what the address of a request names.

        Raises
        ------
        NoSuchResource, Gone
            When there is nothing, or there was.
        """
        named = uids(request)
        with reading(self._engine) as connection:
            found = held(connection, named["study"], named.get("series"), named.get("instance"))
        if not found:
            raise NoSuchResource
        kept = [each for each in found if not each.removed]
        if not kept:
            raise Gone
        # One SOP Instance UID is one instance; only hostile senders use it twice.
        return kept[:1] if "instance" in named else kept


class Ready:
    """A file that is given, and removed after it when it was made for that."""

    def __init__(self, path: Path, *, temporary: bool = False) -> None:
        self.path = path
        self._temporary = temporary

    def given(self) -> Iterator[bytes]:
        """Yield the bytes."""
        try:
            yield from file_range(self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what is not needed any more."""
        if self._temporary:
            self.path.unlink(missing_ok=True)


def _identity(each: Held) -> Model:
    return {
        **attribute("SOPClassUID", each.sop_class_uid),
        **attribute("SOPInstanceUID", each.uid),
        **attribute("StudyInstanceUID", each.study_uid),
        **attribute("SeriesInstanceUID", each.series_uid),
    }


def _frame_syntax(form: Form, stored: str) -> str:
    syntax = form.syntax_of(stored)
    if syntax is None:
        raise NotAcceptable("the frames cannot be given in the transfer syntax that is asked for")
    # Frames of Implicit VR are the same bytes.
    return syntax if UID(syntax).is_encapsulated else NATIVE


def _numbers(text: str, available: int) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,7}(,[0-9]{1,7})*", text) or text.count(",") >= MOST_FRAMES:
        raise BadRequest("not a list of frame numbers")
    numbers = [int(each) for each in text.split(",")]
    if not all(1 <= number <= available for number in numbers):
        raise NoSuchResource(f"frames 1 to {available} are here")
    return numbers
