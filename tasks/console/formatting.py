"""Format sizes, durations, rates and progress for people. Pure."""

from __future__ import annotations

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def format_size(count: float | None) -> str:
    """Format a number of bytes in powers of ten, as `ls --si` does: `5.16 GB`."""
    if count is None:
        return "?"
    for unit, step in _UNITS:
        if count >= step * 0.9995:
            value = count / step
            digits = 2 if value < 9.995 else 1
            return f"{value:.{digits}f} {unit}"
    return f"{int(count)} B"


def format_duration(value: float) -> str:
    """Format a duration: `40 ms`, `2.5 s`, `63 s`, `12 min 5 s`."""
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 119.5:
        return f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s"


def format_rate(count: float, elapsed: float) -> str:
    """Format bytes per second: `82.0 MB/s`; `-` if no time has passed."""
    if elapsed <= 0:
        return "-"
    return f"{format_size(count / elapsed)}/s"


def format_percent(done: int, total: int | None) -> str:
    """Format a share, rounded down: `43 %`; "" if the total is unknown."""
    return f"{done * 100 // total} %" if total else ""


def format_progress(
    done: int, total: int | None, elapsed: float, gained: int, note: str = ""
) -> str:
    """Format a download in one line (R7): percent, done/total, rate, time left.

    Args:
        elapsed: seconds since its start.
        gained: bytes that arrived in these seconds.
    """
    amount = (
        f"{format_size(done)} of {format_size(total)}" if total else format_size(done)
    )
    parts = [format_percent(done, total), amount, format_rate(gained, elapsed)]
    if total and gained and elapsed > 0:
        left_s = (total - done) * elapsed / gained
        parts.append(f"{format_duration(left_s)} left")
    parts.append(note)
    return ", ".join(part for part in parts if part)


def task_line(title: str, count: int | None) -> str:
    """Format one line of `doit list --all`."""
    return f"{title}, {format_size(count)}" if count else title
