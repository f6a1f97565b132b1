"""A lock file that one process holds at a time; it goes with the process, also when that is killed. Needs no torch."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interp_unlearn._core._errors import DataError

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def locked(folder: str | Path, *, wait: bool = True) -> Iterator[None]:
    """Hold ``folder`` (made if needed) by its file ``.lock`` for the length of a ``with`` block.

    Where the system or the file system has no locks (Windows, some network drives) the block runs without one: files
    are written atomically, so that work may then be done twice but is not mixed.

    Args:
        folder: What to hold. Two blocks of one process exclude each other too, so do not nest them on one folder.
        wait: Wait for the other holder to finish, instead of raising.

    Raises:
        DataError: With ``wait`` off, if another process or block holds the folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD and not wait:
                raise DataError(
                    f"another process is writing {folder}; wait for it, or choose another folder"
                ) from error
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
                raise
        yield
    finally:
        os.close(handle)
