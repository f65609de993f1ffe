"""How often one source is asked again after a failure, and after which pause. Pure: jitter is an argument."""

from __future__ import annotations

from tasks.console import formatting
from tasks.network.response import LINKS, RETRIES, WAIT_TOTAL_S, Verdict, Word, backoff_s


class GaveUp(Exception):
    """One source will not deliver; the reason is the text. `silent`: its host did not even answer;
    `final`: asking again would not help."""

    def __init__(self, reason: str, silent: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.silent, self.final = silent, final


class Patience:
    """What one source has cost so far; any byte that comes restores it, but for the time waited.

    Args:
        most: attempts in a row that bring nothing.
    """

    def __init__(self, most: int = RETRIES) -> None:
        self._most = most
        self.failures = 0  # attempts in a row that brought nothing
        self._links = 0  # links in a row that were refused
        self._waited_s = 0.0

    def restore(self) -> None:
        """Bytes came."""
        self.failures = self._links = 0

    def pause_s(self, verdict: Verdict, moved: bool, restarts: int, jitter: float) -> float:
        """Seconds until the next attempt; 0 for a link that was only old.

        Args:
            moved: the attempt brought bytes before it failed.
            restarts: how often this source had to begin again: the same bytes once more are no progress.
            jitter: from 0 to 1, drawn anew each time.

        Raises:
            GaveUp: there will be none.
        """
        if moved:
            self.restore()
        self.failures += 1
        self._links += verdict.word is Word.RELINK
        if verdict.word is Word.GIVE_UP or self._links > LINKS:
            raise GaveUp(verdict.reason, final=True)
        if verdict.word is Word.RELINK and not verdict.crowded:
            return 0.0
        wait, tries = backoff_s(self.failures, verdict.wait_s, jitter), max(self.failures, restarts)
        if self._waited_s + wait > WAIT_TOTAL_S:
            raise GaveUp(f"{verdict.reason} (it would take {formatting.seconds(wait)} more of waiting)")
        if tries >= self._most:
            raise GaveUp(f"{verdict.reason} (tried {tries} times)", verdict.silent)
        self._waited_s += wait
        return wait
