"""Places for results, tried before any work: nobody should read a thousand images and then have nowhere to write."""

from pathlib import Path
from tempfile import TemporaryFile

from ai.errors import Unwritable


def writable_folder(folder: Path) -> Path:
    """Make a folder unless it is there, and write to it.

    Raises
    ------
    Unwritable
        When either cannot be done; the folder is named.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise Unwritable(f"{folder}: is a file") from error
    except OSError as error:
        raise Unwritable(f"{folder}: {error.strerror}") from error
    _try(folder, folder)
    return folder


def writable_file(file: Path) -> Path:
    """Make sure that a file can be written; its folder must be there, and what it holds stays.

    Raises
    ------
    Unwritable
        When it cannot be; the file is named.
    """
    _try(file.parent, file)
    if file.is_dir():
        raise Unwritable(f"{file}: is a folder")
    return file


def _try(folder: Path, named: Path) -> None:
    try:
        with TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise Unwritable(f"{named}: {error.strerror}") from error
