"""The replaceable dependencies of a transfer: clock, sleep, session, progress."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tasks.console.progress import Progress, progress


@dataclass
class Dependencies:
    """Clock, sleep, randomness, HTTP session and progress bar of a transfer."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    new_session: Callable[[], Any] | None = None
    show: Callable[[str, int], Progress] = field(default=progress)
