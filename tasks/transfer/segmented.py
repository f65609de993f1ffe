"""All bytes that a partial file lacks, from one URL, over as many connections (lanes) as pay.

How many, what an answer means and how long to wait is decided in `core`; the digest and the final name are
not given here. One thread a lane; the thread that calls `receive` looks after them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.catalogue.artifact import Artifact
from tasks.console import formatting
from tasks.console.logs import say
from tasks.console.progress import Progress
from tasks.errors import TransferError
from tasks.network import http, response
from tasks.network.response import Asked, Verdict, Word
from tasks.network.retry import GaveUp, Patience
from tasks.transfer import scaling
from tasks.transfer.connection import SHARE_LEAST, SLOW_S, Lane
from tasks.transfer.partial import Partial
from tasks.transfer.ranges import ENDLESS, Piece
from tasks.urls import host_of

if TYPE_CHECKING:
    from tasks.transfer.dependencies import Tools

TICK_S = 0.05  # between two looks at the lanes
STALL_S = 4.0  # a lane that is silent for so long, while others are not, is given up
SHARE_S = 0.4  # a lane that will be busy for longer shares the rest of its piece


class Source:
    """One URL of an artifact.

    Args:
        single: one connection only.
        token: for the URL's own host.
        accept: called with each answer whose body is taken.
    """

    def __init__(
        self, artifact: Artifact, url: str, partial: Partial, bar: Progress, tools: Tools, *,
        single: bool, token: str, accept: Callable[[http.Answer], None],
    ) -> None:  # fmt: skip
        self._artifact, self._url, self._partial, self._bar = artifact, url, partial, bar
        self._tools, self._token, self._accept = tools, token, accept
        self._plan, self._changed = partial.plan, partial.changed
        self._pinned = artifact.sha256 is not None
        self._ramp = scaling.Ramp(1 if single or not self._pinned else scaling.most_lanes(url, artifact.size))
        self._lanes: list[Lane] = []
        self._link = ""  # where the origin has sent us
        self._linking = threading.Lock()  # held while the origin is asked for a link
        self._redirects = False
        self._ranges = True  # ranges are asked for
        self._trickled: Verdict | None = None  # why the lane before was given up
        self._crowded = False  # the server has refused a request because there were too many
        self._stopping = self._pausing = False
        self._end: BaseException | None = None  # why it ended before its time
        self._patience = Patience()
        self._restarts = partial.restarts
        self._received, self._answer_s = 0, 0.0  # bytes of lanes that ended; longest wait for an answer
        self._compared = tools.clock()

    def receive(self) -> None:
        """Return when every byte is here.

        Raises:
            GaveUp: it will not deliver.
            OSError, TakenOver: the partial cannot be written.
        """
        try:
            while not self._is_over():
                self._look_after()
                with self._changed:
                    if not self._is_over():
                        self._changed.wait(TICK_S)
        finally:
            self._stop()
            self._show()
        error = self._end or self._partial.error
        if error and not self._plan.is_complete:
            raise error

    def _is_over(self) -> bool:
        with self._changed:
            return bool(self._plan.is_complete or self._end or self._partial.error)

    # The thread that looks after the lanes

    def _look_after(self) -> None:
        """Show how far it is; begin and replace lanes."""
        self._show()
        now = self._tools.clock()
        if self._pausing:  # the server has asked for it: no other lane asks meanwhile
            return
        with self._changed:
            self._give_up_silent(now)
            flowing = sum(lane.received > 0 for lane in self._lanes)
            received = self._received + sum(lane.received for lane in self._lanes)
            wanted = self._ramp.step(now, received, flowing, self._answer_s)
            while len(self._lanes) < wanted and (not self._lanes or self._has_work(now)):
                session = (self._tools.new_session or http.new_session)()
                lane = Lane(self._partial, session, self._tools.clock, heard=now)
                self._lanes.append(lane)
                threading.Thread(target=self._work, args=(lane,), name="lane", daemon=True).start()
            if now - self._compared >= scaling.SLOW_LOOK_S:
                self._compare(now)

    def _show(self) -> None:
        with self._changed:
            done, size, count = self._plan.done, self._plan.size, len(self._lanes)
        note = "no ranges" if any(lane.skipping for lane in list(self._lanes)) else ""
        self._bar.at(done, size, f"{count} connections" if count > 1 else note)

    def _compare(self, now: float) -> None:
        """Replace the connections that are much slower than the others: they met a bad edge."""
        span, self._compared = now - self._compared, now
        rates = {i: (lane.received - lane.mark) / span for i, lane in enumerate(self._lanes) if lane.mark}
        for index in scaling.slow_lanes(rates):
            self._lanes[index].replace = True
        for lane in self._lanes:
            lane.mark = lane.received

    def _stop(self) -> None:
        """From here on no lane writes; one that waits for its socket ends when that speaks, or with us."""
        self._stopping = True
        for lane in list(self._lanes):
            self._end_lane(lane)

    def _end_lane(self, lane: Lane) -> None:
        with lane.gate:
            lane.stopped = True
        self._put_back(lane)

    def _give_up_silent(self, now: float) -> None:
        """Leave the lanes to themselves that bring nothing while others do; their pieces are fetched anew."""
        silent = [lane for lane in self._lanes if lane.piece and now - lane.heard > STALL_S]
        if len(silent) < len(self._lanes):
            for lane in silent:
                self._end_lane(lane)
                self._leave(lane)
                if not lane.received:
                    self._ramp.refused(now, len(self._lanes))
        elif len(self._lanes) == 1 and now - silent[0].heard > SLOW_S + STALL_S:
            self._end_lane(silent[0])  # it trickles: not even the smallest buffer gets full
            self._leave(silent[0])
            why = f"a connection that brings almost nothing for {SLOW_S:.0f} s"
            self._trickled = Verdict(Word.RETRY, why)

    def _leave(self, lane: Lane) -> None:
        """Count a lane no more: those that remain may be alone now."""
        with self._changed:
            if lane in self._lanes:
                self._lanes.remove(lane)
                self._received += lane.received
            self._changed.notify_all()

    def _put_back(self, lane: Lane) -> None:
        with self._changed:
            if lane.piece in self._plan.active:
                self._plan.finish(lane.piece)
            lane.piece = None

    # What is fetched next

    def _next(self, lane: Lane) -> Piece | None:
        """The lane's next piece; None when it is not needed any more."""
        now = self._tools.clock()
        with self._changed:
            if self._stopping or self._is_over() or self._is_surplus(now):
                self._leave(lane)
                return None
            piece = self._plan.take(self._most(lane))
            if piece is None and (busiest := self._busiest(now)):
                with busiest.gate:
                    busiest.cut()
                piece = self._plan.take(self._most(lane))
            lane.piece, lane.since, lane.heard = piece, now, now
            return piece

    def _most(self, lane: Lane) -> int:
        """Bytes that one request may ask for: all, where there will be no second lane."""
        sparing = self._crowded and len(self._lanes) == 1  # it counts requests
        if self._ramp.most == 1 or self._plan.size is None or sparing:
            return ENDLESS
        missing = self._plan.size - self._plan.done
        return scaling.piece_size(missing, len(self._lanes), lane.last, lane.rate)

    def _has_work(self, now: float) -> bool:
        return self._plan.has_gap or self._busiest(now) is not None

    def _is_surplus(self, now: float) -> bool:
        """Whether there are more lanes than wanted, not counting those that nobody can rely on yet."""
        bringing = sum(lane.received > 0 and now - lane.heard < STALL_S for lane in self._lanes)
        return bringing > max(1, self._ramp.lanes)

    def _busiest(self, now: float) -> Lane | None:
        """The lane whose rest an idle one should share."""
        if self._ramp.most == 1 or self._plan.size is None:
            return None  # only pinned bytes may come from two answers
        found, most = None, 2 * SHARE_LEAST - 1
        for lane in self._lanes:
            piece = lane.piece
            if piece is not None and piece.left > most:
                rate = (piece.pos - piece.start) / max(now - lane.since, 0.001)
                if 0 < rate * SHARE_S < piece.left:
                    found, most = lane, piece.left
        return found

    def _goes_further(self, lane: Lane, piece: Piece) -> bool:
        """Whether a piece that is here goes on with the same answer."""
        with self._changed:
            return not self._is_surplus(lane.heard) and self._plan.extend(piece, self._most(lane))

    # What a lane does

    def _work(self, lane: Lane) -> None:
        _give_way()
        try:
            trickled, self._trickled = self._trickled, None
            if trickled and not self._pauses(trickled, False):
                return
            while (piece := self._next(lane)) is not None:
                verdict = self._attempt(lane, piece)
                moved = piece.pos > piece.start
                lane.last = piece.pos - piece.start
                lane.rate = lane.last / max(self._tools.clock() - lane.since, 0.001)
                self._put_back(lane)
                if self._stopping or lane.stopped or not self._goes_on(lane, verdict, moved):
                    break
        except BaseException as error:  # a full disk, or a mistake of ours: for the thread that waits
            self._end = error
        finally:
            self._put_back(lane)
            self._leave(lane)

    def _attempt(self, lane: Lane, piece: Piece) -> Verdict:
        """One request and its body; DONE when the piece is here."""
        answered = False
        try:
            with ExitStack() as stack:
                if not self._pinned and piece.pos and not self._partial.validator:
                    self._drop(piece)  # nothing would tell whether the rest belongs to what is here
                asked = self._asked(piece)
                start = self._tools.clock()
                answer = self._send(stack, lane, asked)
                answered = True
                self._answer_s = max(self._answer_s, self._tools.clock() - start)
                asked = asked._replace(link=bool(lane.link))
                now = datetime.now(timezone.utc)
                verdict = response.judge(answer.status, answer.headers, asked, now, answer.redirected)
                if verdict.word is Word.WHOLE and len(self._lanes) > 1:
                    return Verdict(Word.RETRY, "it ignores ranges", crowded=True)
                if verdict.word in (Word.BODY, Word.WHOLE, Word.DONE):
                    return self._take(lane, piece, answer, verdict)
                return verdict
        except TransferError as error:
            word = Word.GIVE_UP if isinstance(error, http.FatalTransfer) else Word.RETRY
            return Verdict(word, error.what, remedy=error.fix, silent=not answered, crowded=not answered)

    def _asked(self, piece: Piece) -> Asked:
        size = self._artifact.size  # what a server said before is not held against another answer
        if not self._ranges:
            return Asked(0, size)
        last = None if piece.end in (self._plan.size, ENDLESS) else piece.end - 1
        return Asked(piece.pos, size, self._partial.validator, last)

    def _send(self, stack: ExitStack, lane: Lane, asked: Asked) -> http.Answer:
        """Ask at the link that the origin gave, else at the origin: one lane gets a link for all."""
        if self._redirects and not self._link:
            with self._linking:
                return self._get(stack, lane, asked)
        return self._get(stack, lane, asked)

    def _get(self, stack: ExitStack, lane: Lane, asked: Asked) -> http.Answer:
        lane.link = self._link
        answer = stack.enter_context(
            http.get(
                lane.session, lane.link or self._url, response.request_headers(asked),
                lambda to: http.problem_of(to, pinned=self._pinned), self._token_for(lane.link),
            )
        )  # fmt: skip
        if answer.redirected and answer.status in (200, 206) and not lane.link:
            self._redirects, self._link = True, answer.url
        return answer

    def _token_for(self, link: str) -> str:
        """The token, unless the origin has sent us to another host."""
        same = not link or urlsplit(link)[:2] == urlsplit(self._url)[:2]
        return self._token if same else ""

    def _drop(self, piece: Piece) -> None:
        """Forget every byte; only for the one lane of a file that nothing pins."""
        with self._changed:
            piece.start = piece.pos = 0
            piece.end = piece.limit = ENDLESS if self._artifact.size is None else self._artifact.size
        self._partial.restart()

    def _take(self, lane: Lane, piece: Piece, answer: http.Answer, verdict: Verdict) -> Verdict:
        """Write a body to its place."""
        if lane.stopped:  # given up while it waited for this answer
            return Verdict(Word.RETRY)
        if verdict.word is Word.WHOLE and not self._pinned:
            self._drop(piece)  # If-Range says that it has changed
        self._accept(answer)
        with self._changed:
            if verdict.total is not None and (self._plan.size is None or verdict.word is Word.DONE):
                self._partial.expect(verdict.total)
                self._ramp.most = min(self._ramp.most, scaling.most_lanes(self._url, verdict.total))
            if self._plan.size is not None:
                piece.end = min(piece.end, self._plan.size)
            piece.limit = piece.end if verdict.last is None else verdict.last + 1
        if verdict.word is Word.DONE:
            return verdict
        skip = 0
        if verdict.word is Word.WHOLE or not self._ranges:
            skip, self._ramp.most = piece.pos, 1
        self._partial.answers += 1
        return lane.read(
            piece, answer.body, lambda p: self._goes_further(lane, p), skip, unlimited=verdict.last is None
        )

    # What comes after a failure

    def _goes_on(self, lane: Lane, verdict: Verdict, moved: bool) -> bool:
        """Whether the lane asks again; waits before it does."""
        if verdict.word is Word.DONE and (moved or self._plan.is_complete):
            lane.failures = 0
            self._patience.restore()
            return True
        if lane.replace:
            lane.replace = False
            return True
        if verdict.word is Word.RELINK and self._link == lane.link:
            self._link = ""
        self._crowded = self._crowded or verdict.crowded
        lane.failures = 1 if moved else lane.failures + 1
        with self._changed:
            if len(self._lanes) > 1:
                return self._beside_others(lane, verdict)
        return self._pauses(verdict, moved)

    def _pauses(self, verdict: Verdict, moved: bool) -> bool:
        self._pausing = True
        try:
            return self._alone(verdict, moved)
        finally:
            self._pausing = False

    def _beside_others(self, lane: Lane, verdict: Verdict) -> bool:
        """The others bring bytes: try again at once, or leave the work to them."""
        asked_to_wait = verdict.crowded or verdict.wait_s is not None
        if asked_to_wait or verdict.word is Word.GIVE_UP or lane.failures > response.LANE_RETRIES:
            self._leave(lane)
            self._ramp.refused(self._tools.clock(), len(self._lanes), verdict.wait_s or 0.0)
            return False
        return True

    def _alone(self, verdict: Verdict, moved: bool) -> bool:
        """Nothing else comes from this source: wait as long as it asks, or give it up."""
        if verdict.word is Word.RESTART and not self._pinned:
            self._partial.restart()
        restarts, jitter = self._partial.restarts - self._restarts, self._tools.jitter()
        try:
            wait = self._patience.pause_s(verdict, moved, restarts, jitter)
        except GaveUp as reason:
            self._end = reason
            return False
        # the whole is asked for where ranges do not work, and now and then where nothing does
        in_vain = verdict.word is Word.RETRY and not self._partial.done and self._patience.failures % 2 == 0
        self._ranges = not (self._pinned and (verdict.word is Word.RESTART or in_vain))
        if verdict.word is not Word.RELINK or wait:
            self._say_again(verdict, wait)
            self._tools.sleep(wait)
        return True

    def _say_again(self, verdict: Verdict, wait: float) -> None:
        done, size = self._partial.done, self._plan.size
        here = f", {formatting.percent(done, size)} is here" if done and size else ""
        say("retry", "%s: %s from %s; again in %s%s", self._artifact.label, verdict.why, host_of(self._url),
            formatting.seconds(wait), here, level=logging.WARNING, artifact=self._artifact.label,
            url=self._url, why=verdict.why, wait_s=round(wait, 1), bytes=done, total=size)  # fmt: skip


def _give_way() -> None:
    """Let the digest's thread go first where there are more threads than cores: it is what all end with."""
    if sys.platform == "linux":  # elsewhere this is a setting of the whole process
        with contextlib.suppress(OSError):
            here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), here + 1)
