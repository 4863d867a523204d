"""The Unix socket of the embedded store, and a path to it that is short enough.

The socket is always in the data folder: a system that cleans its temporary folder would cut off a
running store. The server binds the socket by its name, from within the folder. Clients need a
path, and a socket address has room for only about 100 bytes.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SOCKET_NAME: Final = "store.sock"  # in the data folder
MAX_SOCKET_PATH: Final = 100  # bytes; kernels allow 104 or 108
OPEN_FILES_FOLDER: Final = Path("/proc/self/fd")  # where Linux shows the open files of a process
LINKS_FOLDER: Final = ".scheduler-api"  # in the home folder; holds links for other systems


class SocketPath:
    """The path by which this process reaches the socket of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self.path = folder / SOCKET_NAME  # short enough after `open`

    def open(self) -> None:
        """Find a short path. Call it again after the folder was created again. Raises: OSError."""
        if len(os.fsencode(self._folder / SOCKET_NAME)) <= MAX_SOCKET_PATH:
            return
        if OPEN_FILES_FOLDER.exists():
            self._open_descriptor()
            self.path = OPEN_FILES_FOLDER / str(self._descriptor) / SOCKET_NAME
        else:
            self.path = self._link() / SOCKET_NAME

    def close(self) -> None:
        """Free what the path needs; it is invalid afterwards."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open_descriptor(self) -> None:
        opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        if self._descriptor < 0:
            self._descriptor = opened
            return
        # Keep the number: clients have it in their path.
        os.dup2(opened, self._descriptor, inheritable=False)
        os.close(opened)

    def _link(self) -> Path:
        links = Path.home() / LINKS_FOLDER
        links.mkdir(0o700, exist_ok=True)
        link = links / hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        with suppress(FileExistsError):
            link.symlink_to(self._folder)
        return link
