"""Hash several files at once; hashlib releases the GIL."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from threading import Event

from tasks.errors import IntegrityError
from tasks.system.files import Hashed, sha256_file

THREADS = 4  # more do not read a disk faster
LOOK_S = 0.1  # interval of progress reports


class CancelledError(Exception):
    """Hashing was cancelled."""


def sha256_files(
    paths: Sequence[str], seen: Callable[[int], None], stop: Callable[[], object]
) -> Generator[tuple[str, Hashed | OSError | IntegrityError], None, None]:
    """Yield (path, digest or error) for each file, in the order of completion.

    Args:
        seen: called every LOOK_S with the bytes that have been read of all files.
        stop: called every LOOK_S; a true result cancels.

    Raises:
        CancelledError: `stop` returned a true value.
    """
    done = dict.fromkeys(paths, 0)
    cancelled = Event()

    def hash_file(path: str) -> Hashed:
        def report(count: int) -> None:
            done[path] = count
            if cancelled.is_set():
                raise CancelledError

        return sha256_file(path, report)

    with ThreadPoolExecutor(THREADS) as pool:
        tasks = {pool.submit(hash_file, path): path for path in paths}
        left = set(tasks)
        try:
            while left:
                ready, left = wait(left, LOOK_S, FIRST_COMPLETED)
                if stop():
                    raise CancelledError
                seen(sum(done.values()))
                for task in ready:
                    error = task.exception()
                    if error is None:
                        yield tasks[task], task.result()
                    elif isinstance(error, (OSError, IntegrityError)):
                        yield tasks[task], error
                    else:
                        raise error
        finally:
            cancelled.set()
            pool.shutdown(wait=False, cancel_futures=True)
