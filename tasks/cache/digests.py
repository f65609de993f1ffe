"""SHA-256 of many files at once: hashlib lets other threads run while it works."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event

from tasks.errors import IntegrityError
from tasks.system.files import Hashed, sha256_file

THREADS = 4  # more read no disk faster
LOOK_S = 0.1  # between two looks how far they are


class Stopped(Exception):
    """It was told to stop."""


def sha256_files(
    paths: Sequence[str], seen: Callable[[int], None], stop: Callable[[], object]
) -> Generator[tuple[str, Hashed | OSError | IntegrityError], None, None]:
    """(path, digest or why it cannot be read) of each file, as they are done.

    Args:
        seen: told every moment how many bytes have been read of all of them.
        stop: asked every moment whether to end.

    Raises Stopped.
    """
    done, ending = dict.fromkeys(paths, 0), Event()

    def digest(path: str) -> Hashed:
        def at(count: int) -> None:
            done[path] = count
            if ending.is_set():
                raise Stopped

        return sha256_file(path, at)

    with ThreadPoolExecutor(THREADS) as pool:
        tasks = {pool.submit(digest, path): path for path in paths}
        left = set(tasks)
        try:
            while left:
                ready, left = wait(left, LOOK_S, FIRST_COMPLETED)
                if stop():
                    raise Stopped
                seen(sum(done.values()))
                for task in ready:
                    error = task.exception()
                    if error is not None and not isinstance(error, (OSError, IntegrityError)):
                        raise error
                    yield tasks[task], error or task.result()
        finally:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
