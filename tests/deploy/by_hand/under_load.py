"""Run a command while clients ask a server: under_load.py URL REQUESTS CLIENTS TOKENS COMMAND...

The clients ask until the command has ended, and at least REQUESTS times; half of the answers are streams.
The key is that of $LLAMA_API_KEY. Ends with status 1 if an answer is lost, or the command fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
from tests.support.balanced_load import WHOLE, load


def main(url: str, requests: str, clients: str, tokens: str, *command: str) -> int:
    """Return the status; print what happened in one line."""
    key = os.environ.get("LLAMA_API_KEY", "")
    start = time.monotonic()
    with load(url, int(requests), int(tokens), int(clients), key) as answers:
        time.sleep(1)
        begun = time.monotonic()
        status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        took = time.monotonic() - begun
    lost = Counter(answer.how for answer in answers if answer.how != WHOLE)
    times = sorted(answer.seconds for answer in answers)
    print(
        f"{len(answers)} answers in {time.monotonic() - start:.1f} s, median {times[len(times) // 2]:.2f} s, "
        f"longest {times[-1]:.2f} s; {sum(lost.values())} lost {dict(lost) or ''}; "
        f"the command took {took:.1f} s, status {status}; load average {os.getloadavg()[0]:.1f}"
    )
    return int(bool(lost or status))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
