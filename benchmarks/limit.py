"""What disk and sockets allow: bytes go from a connection to a file, flushed, renamed, the folder flushed.

Run: python -m benchmarks.limit PORT FOLDER
"""

import os
import socket
import struct
import sys
from itertools import count
from pathlib import Path
from threading import Thread

NUMBERS = count()


def serve(connection: socket.socket, folder: Path) -> None:
    """Receive files from one connection."""
    buffer = memoryview(bytearray(1 << 20))
    while length := connection.recv(8, socket.MSG_WAITALL):
        (left,) = struct.unpack(">Q", length)
        name = folder / str(next(NUMBERS))
        file = os.open(name.with_suffix(".part"), os.O_CREAT | os.O_WRONLY)
        while left:
            here = connection.recv_into(buffer[: min(left, len(buffer))])
            os.write(file, buffer[:here])
            left -= here
        os.fsync(file)
        os.close(file)
        name.with_suffix(".part").rename(name)
        directory = os.open(folder, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        connection.sendall(b"\0")


def main() -> None:
    """Receive until killed."""
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=64) as server:
        while True:
            connection, _ = server.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            Thread(target=serve, args=(connection, Path(sys.argv[2])), daemon=True).start()


if __name__ == "__main__":
    main()
