"""What is kept, as far as it can be had: an outage holds everything up, an object that alone is not given only itself."""

from pathlib import Path

from node.telemetry import logger
from storage.errors import BucketUnavailable
from storage.files import InstanceStore

log = logger("store")


def obtain(store: InstanceStore, path: str) -> Path:
    """Return the file of a path that the index keeps; nothing is there when it is gone, or when all but it can be had.

    Raises
    ------
    BucketUnavailable
        When nothing can be had.
    """
    try:
        return store.resolve(path)
    except BucketUnavailable as error:
        store.reach()
        log.warning("object not given", path=path, cause=str(error))
        return store.root / path
