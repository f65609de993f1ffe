"""Open files of the cache without following anything: links, other names, pipes.

A cache may be shared, restored from a backup or unpacked from an archive: a path that
the recipe uses may hold something that the recipe did not create. A write replaces it;
a read ignores it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from tasks.errors import RecipeError
from tasks.system.paths import shared_mode, temporary_key, temporary_name

_FLAGS = (
    getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOINHERIT", 0)
    | getattr(os, "O_NONBLOCK", 0)  # do not wait for the other end of a pipe
)
_TRIES = 5
# errors which mean that the path was changed between two calls
_CHANGED = (errno.EEXIST, errno.ENOENT, errno.ELOOP, errno.EMLINK)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def is_own(path: str) -> bool:
    """Return whether a path is a regular file with one name that this user owns.

    A file that belongs to the owner of its folder counts as well: that user may replace
    it at any time, and some file systems (NFS, CIFS, FAT) show all files and folders as
    those of another user.
    """
    try:
        return _is_own(os.lstat(path), path)
    except (OSError, ValueError):
        return False


def _is_own(status: os.stat_result, path: str) -> bool:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        return False
    if not hasattr(os, "geteuid") or status.st_uid == os.geteuid():
        return True
    return status.st_uid == os.stat(os.path.dirname(path)).st_uid


def open_own(path: str) -> int:
    """Open a file for reading and writing, creating it if there is none.

    A file that this user does not own, a link or a pipe is removed first.

    Raises:
        OSError: it is a device or a folder, or another program keeps replacing it.
    """
    problem = OSError(errno.EEXIST, "another program keeps replacing it", path)
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
        if _is_own(os.fstat(handle), path):
            return handle
        os.close(handle)
    raise problem


def remove_foreign(path: str) -> None:
    """Remove a link, a file or a pipe at a path that the recipe writes to.

    A device or a folder is never removed: it is not there by mistake, and nothing could
    restore it.

    Raises:
        OSError: it is a device or a folder, or cannot be removed.
    """
    mode = os.lstat(path).st_mode
    kinds = (stat.S_ISREG, stat.S_ISLNK, stat.S_ISFIFO, stat.S_ISSOCK)
    if not any(is_kind(mode) for is_kind in kinds):
        raise OSError(
            errno.EINVAL, "it is a device or a folder, and is not replaced", path
        )
    os.unlink(path)


def create(path: str, mode: int = 0o644) -> int:
    """Create a file for reading and writing. Raises FileExistsError, OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS | _NO_LINK, mode)


def temporary_path(path: str, ending: str) -> str:
    """Return a new path for a temporary file beside `path`; `create` opens it."""
    folder, name = os.path.split(path)
    salt = os.urandom(4).hex()
    return os.path.join(folder, temporary_name(name, os.getpid(), salt, ending))


def temporaries(path: str, ending: str) -> list[str]:
    """List the temporary files beside `path` with this ending, of all processes."""
    folder, name = os.path.split(path)
    beginning = temporary_key(name)
    try:
        names = sorted(os.listdir(folder or "."))
    except OSError:
        return []
    return [
        os.path.join(folder, entry)
        for entry in names
        if entry.startswith(beginning) and entry.endswith(ending)
    ]


def open_regular(path: str) -> int:
    """Open a regular file for reading, also through a link.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    handle = os.open(path, os.O_RDONLY | _FLAGS)
    if stat.S_ISREG(os.fstat(handle).st_mode):
        return handle
    os.close(handle)
    raise OSError(errno.EINVAL, "it is not a regular file")


def read_most(path: str, most: int) -> bytes | None:
    """Read a small regular file; None if there is none, or it exceeds `most` bytes."""
    try:
        with open(open_regular(path), "rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= most else None


def read_of_user(path: str, most: int) -> bytes | None:
    """Read a small file that this user or root has written; else return None.

    A directory of the cache may be shared: what another user wrote proves nothing.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _FLAGS | _NO_LINK)
    except (OSError, ValueError):
        return None
    status = os.fstat(handle)
    is_own = not hasattr(os, "geteuid") or status.st_uid in (0, os.geteuid())
    if not (stat.S_ISREG(status.st_mode) and is_own):
        os.close(handle)  # `open` raises an error for a folder
        return None
    with open(handle, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        return None
    return data


def make_folder(cache: str, name: str) -> None:
    """Create a folder of the cache that every user of the cache can write.

    It gets the permissions of the cache: with another umask, the first user would lock
    out all others.

    Raises:
        OSError: it cannot be created.
    """
    path = os.path.join(cache, name)
    os.makedirs(path, exist_ok=True)
    with contextlib.suppress(OSError):  # another user's folder, or no such permissions
        _share(path, os.stat(cache))


def _share(path: str, cache: os.stat_result) -> None:
    """Add the permissions of the cache to a folder of this user.

    Raises:
        OSError: the system does not permit it.
    """
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or not cache.st_mode & 0o022:
        return
    if not hasattr(os, "geteuid") or status.st_uid != os.geteuid():
        return
    is_same_group = status.st_gid == cache.st_gid
    if not is_same_group:
        with contextlib.suppress(OSError):  # the user is not in that group
            os.chown(path, -1, cache.st_gid)
            is_same_group = True
    mode = stat.S_IMODE(status.st_mode) | shared_mode(cache.st_mode, is_same_group)
    if mode != stat.S_IMODE(status.st_mode):
        os.chmod(path, mode)


def check_inside(cache: str, path: str) -> None:
    """Check that no folder between the cache and a path in it is a link.

    Raises:
        RecipeError: one is.
    """
    link = link_inside(cache, path)
    if link:
        what = f"{link} is a symbolic link: nothing is written through it"
        fix = (
            "replace it by a folder, or set LLAMAFILE_CACHE to a directory on that disk"
        )
        raise RecipeError(what, fix=fix)


def link_inside(cache: str, path: str) -> str:
    """Return the first folder between cache and `path` that is a link; "" if none."""
    parent = os.path.relpath(os.path.dirname(path), cache)
    if parent.startswith(os.pardir) or os.path.isabs(parent):
        return ""  # a file of the user's, outside the cache
    folder = cache
    for part in parent.split(os.sep):
        folder = os.path.join(folder, part)
        if part != os.curdir and os.path.islink(folder):
            return folder
    return ""


def lock_file(cache: str, name: str) -> str:
    """Return the path of a lock file, which is safe to open.

    Opening a lock file empties it: a link, or a file with a second name, is removed.

    Raises:
        RecipeError: the folder of the locks is a link.
    """
    path = os.path.join(cache, "locks", name)
    check_inside(cache, path)
    with contextlib.suppress(OSError):
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            remove_foreign(path)
    return path
