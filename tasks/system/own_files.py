"""Files of the cache, opened so that nothing is followed: no link, no other name of a file, no pipe.

A cache may be shared, restored or unpacked from somewhere: what lies in it under one of our names need not be
a file of ours. Where it is written, it is replaced; where it is read, it counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from tasks.errors import RecipeError
from tasks.system.paths import temporary_key, temporary_name

_FLAGS = (
    getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_NONBLOCK", 0)  # a pipe has no reader to wait for
)
_TRIES = 5
_CHANGED = (errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.EMLINK)  # between two calls
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def is_own(path: str) -> bool:
    """Whether a path is a regular file with one name that belongs to us, or to the owner of its folder.

    The owner of the folder may replace it at any time; and some file systems (NFS, CIFS, FAT) show every
    file as somebody else's, the folder too.
    """
    try:
        return _fits(os.lstat(path), path)
    except (OSError, ValueError):
        return False


def _fits(found: os.stat_result, path: str) -> bool:
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        return False
    mine = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    return mine or found.st_uid == os.stat(os.path.dirname(path)).st_uid


def open_own(path: str) -> int:
    """Open a file for reading and writing; what is not ours is removed first, and a new one is begun.

    Raises OSError: it is a device or a folder, or something puts a link there again and again.
    """
    problem = OSError(errno.EEXIST, "another program puts something else in its place", path)
    for _ in range(_TRIES):
        try:
            if not os.path.lexists(path):
                return create(path)
            if not is_own(path):
                remove_foreign(path)
                continue
            handle = os.open(path, os.O_RDWR | _FLAGS | _NO_LINK)
        except OSError as error:
            if error.errno not in _CHANGED:
                raise
            problem = error
            continue
        if _fits(os.fstat(handle), path):
            return handle
        os.close(handle)
    raise problem


def remove_foreign(path: str) -> None:
    """Remove a link, a file or a pipe that lies where a file of ours belongs.

    Never a device or a folder: nobody puts one there by mistake, and nothing else would bring it back.

    Raises OSError: it is one of these, or cannot be removed.
    """
    mode = os.lstat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        raise OSError(errno.EINVAL, "it is a device or a folder, and is not replaced", path)
    os.unlink(path)


def create(path: str, mode: int = 0o644) -> int:
    """Open a new file for reading and writing. Raises FileExistsError, OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS | _NO_LINK, mode)


def temporary_path(path: str, ending: str) -> str:
    """A path for a temporary file beside `path`, another one each time; `create` opens it."""
    folder, name = os.path.split(path)
    return os.path.join(folder, temporary_name(name, os.getpid(), os.urandom(4).hex(), ending))


def temporaries(path: str, ending: str) -> list[str]:
    """The temporary files beside `path` with this ending, of any process."""
    folder, name = os.path.split(path)
    begin = temporary_key(name)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        return []
    found = (one for one in names if one.startswith(begin) and one.endswith(ending))
    return [os.path.join(folder, one) for one in found]


def open_regular(path: str) -> int:
    """Open a regular file for reading, behind a link as well. Raises OSError: it is not one."""
    handle = os.open(path, os.O_RDONLY | _FLAGS)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is not a regular file")


def read_most(path: str, most: int) -> bytes | None:
    """The bytes of a small regular file; None where there is none, or where it has more than `most`."""
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= most else None


def check_inside(cache: str, path: str) -> None:
    """See that no folder between the cache and a path in it is a link. Raises RecipeError: one is."""
    if link := link_inside(cache, path):
        raise RecipeError(
            f"{link} is a symbolic link: nothing is written behind it",
            fix="put a folder in its place, or set LLAMAFILE_CACHE to a directory on the other disk",
        )


def link_inside(cache: str, path: str) -> str:
    """The first folder between the cache and a path in it that is a link, or nothing."""
    rest = os.path.relpath(os.path.dirname(path), cache)
    if rest.startswith(os.pardir) or os.path.isabs(rest):  # a file of the user's, elsewhere
        return ""
    folder = cache
    for part in rest.split(os.sep):
        folder = os.path.join(folder, part)
        if part != os.curdir and os.path.islink(folder):
            return folder
    return ""


def lock_file(cache: str, name: str) -> str:
    """The path of a lock file; a link, or a file that has another name as well, is removed.

    Opening a lock file empties it. Raises RecipeError: the folder of the locks is a link.
    """
    path = os.path.join(cache, "locks", name)
    check_inside(cache, path)
    with contextlib.suppress(OSError):
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            remove_foreign(path)
    return path
