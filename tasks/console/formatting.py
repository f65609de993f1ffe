"""What people read: sizes, durations, rates, and the text around a running server. Pure."""

from __future__ import annotations


def size(count: float | None) -> str:
    """Bytes as people say them, in powers of ten as shops and `ls --si` do: `5.16 GB`."""
    if count is None:
        return "?"
    for unit, step in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= step * 0.9995:
            value = count / step
            return f"{value:.2f} {unit}" if value < 9.995 else f"{value:.1f} {unit}"
    return f"{int(count)} B"


def seconds(value: float) -> str:
    """A duration: `40 ms`, `2.5 s`, `63 s`, `12 min 5 s`."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 119.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def rate(count: float, elapsed: float) -> str:
    """Bytes a second: `82.0 MB/s`."""
    return f"{size(count / elapsed)}/s" if elapsed > 0 else "-"


def percent(done: int, total: int | None) -> str:
    """`43 %`; nothing where the total is unknown. Never says 100 before the last byte."""
    return f"{done * 100 // total} %" if total else ""


def progress(done: int, total: int | None, elapsed: float, gained: int, note: str = "") -> str:
    """A download in one line (R7): percent, done/total, rate, time left.

    Args:
        gained: bytes that came in `elapsed` seconds; without what was there before.
    """
    parts = [percent(done, total), f"{size(done)} of {size(total)}" if total else size(done)]
    parts.append(rate(gained, elapsed))
    if total and gained and elapsed > 0:
        parts.append(f"{seconds((total - done) * elapsed / gained)} left")
    parts.append(note)
    return ", ".join(p for p in parts if p)


def task_line(title: str, count: int | None) -> str:
    """One line of `doit list --all`."""
    return f"{title}, {size(count)}" if count else title
