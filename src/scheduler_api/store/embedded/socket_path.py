"""Where the embedded store listens, and a path of that socket which is short enough.

The socket is always in the data folder. A temp folder is cleaned, and then the store would live
but nobody could reach it. The server binds it by its name alone, from within the folder; a client
needs a path, and the address of a socket takes only some 100 bytes.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NAME: Final = "store.sock"  # of the socket, in the data folder
LIMIT: Final = 100  # bytes of a socket's path; the kernels' own limits are 104 and 108
DESCRIPTORS: Final = Path("/proc/self/fd")  # where Linux shows the open files of a process
LINKS: Final = ".scheduler-api"  # folder in the home folder, with links for other systems


class SocketPath:
    """How this process reaches the socket of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._descriptor = -1
        self.path = folder / NAME  # a short one, after `open`

    def open(self) -> None:
        """Find a short path; again after the folder was made anew. Raises: OSError."""
        if len(os.fsencode(self._folder / NAME)) <= LIMIT:
            return
        if DESCRIPTORS.exists():
            self._open_descriptor()
            self.path = DESCRIPTORS / str(self._descriptor) / NAME
        else:
            self.path = self._link() / NAME

    def close(self) -> None:
        """The path is of no use after that."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open_descriptor(self) -> None:
        opened = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        if self._descriptor < 0:
            self._descriptor = opened
            return
        # The same number: clients know the path by it.
        os.dup2(opened, self._descriptor, inheritable=False)
        os.close(opened)

    def _link(self) -> Path:
        links = Path.home() / LINKS
        links.mkdir(0o700, exist_ok=True)
        link = links / hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        with suppress(FileExistsError):
            link.symlink_to(self._folder)
        return link
