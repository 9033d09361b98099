"""Addresses of resources, and the UIDs in them."""

from starlette.requests import HTTPConnection

from storage.files import InstanceReference


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


def instance_address(connection: HTTPConnection, study: str, series: str, instance: str) -> str:
    """Return the address of an instance."""
    return f"{base(connection)}/studies/{study}/series/{series}/instances/{instance}"
