"""A receiver as pynetdicom's examples show it: decodes each data set and saves it. Flushes the file, as the node does.

Run: python -m benchmarks.naive PORT FOLDER
"""

import os
import sys
from pathlib import Path

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt


def main() -> None:
    """Receive until killed."""
    folder = Path(sys.argv[2])

    def store(event: evt.Event) -> int:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        path = folder / str(dataset.SOPInstanceUID)
        dataset.save_as(path, enforce_file_format=True)
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)
        return 0

    entity = AE()
    entity.maximum_associations = 64
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax or "", ALL_TRANSFER_SYNTAXES)
    entity.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
