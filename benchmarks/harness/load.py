"""How much of the machine other processes took while a row was measured."""

import os
import time

#: Rows are not judged where others took more than this many cores: what was measured is theirs too.
MOST = 0.25


class Load:
    """Cores taken by other processes since it was made; None where that cannot be told."""

    def __init__(self):
        self._start = _busy()

    def others(self) -> float | None:
        """Their mean number of cores, at least 0."""
        now = _busy()
        if now is None or self._start is None:
            return None
        seconds, everybody, own = (b - a for a, b in zip(self._start, now, strict=True))
        return max(0.0, (everybody - own) / max(seconds, 1e-3))


def _busy() -> tuple[float, float, float] | None:
    """Seconds of the clock, of all cores at work, and of this process and its finished children."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            ticks = [int(x) for x in file.readline().split()[1:]]
    except OSError:  # not Linux
        return None
    user, nice, system, _, _, irq, soft, *_ = ticks
    everybody = (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return time.monotonic(), everybody, own
