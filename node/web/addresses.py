"""Addresses of resources, and the UIDs and numbers in them."""

from typing import Final

from starlette.requests import HTTPConnection

from node.errors import BadRequest
from storage.files import InstanceReference

LONGEST: Final = 9
"""Digits of a number; `int` takes no more than 4300."""


def base(connection: HTTPConnection) -> str:
    """Return the address of the DICOMweb service, as the client knows it."""
    # Starlette's own base_url leaves out where the service is mounted.
    root = connection.app.state.address or str(connection.base_url).rstrip("/")
    return f"{root}{connection.scope.get('root_path', '')}"


def uids(connection: HTTPConnection) -> dict[str, str]:
    """Return the UIDs of an address by ``study``, ``series`` and ``instance``, as far as there are some.

    Raises
    ------
    storage.errors.MalformedUID
        When one is none.
    """
    known = connection.path_params
    found: dict[str, str] = {name: known[name] for name in ("study", "series", "instance") if name in known}
    for uid in found.values():
        InstanceReference(uid, uid, uid)
    return found


def number(connection: HTTPConnection, name: str) -> int | None:
    """Return the number that a parameter of the query is, None when it is none.

    Raises
    ------
    BadRequest
        When nothing here is so large.
    """
    text = connection.query_params.get(name, "")
    if not text.isascii() or not text.isdigit():
        return None
    if len(text) > LONGEST:
        raise BadRequest(f"{name} is too large")
    return int(text)
