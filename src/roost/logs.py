"""Lines of several nodes' logs as one stream, and the few of them that tell what went wrong.

A line is `daemon | 11/22/26 18:44:38 message`, as the node's relay writes it.
"""

from __future__ import annotations

import heapq
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from roost.errors import RoostError

_STAMP: Final = re.compile(r"^[^|]*\| (\d\d)/(\d\d)/(\d\d) (\d\d:\d\d:\d\d)")
_WRONG: Final = re.compile(
    r"\b(?:errors?|fail\w*|denied|refused|cannot|can't|unable|invalid|not permitted|no such"
    r"|no space|exit(?:ed|ing) with status [1-9]\d*)\b|^roost \|",
    re.IGNORECASE,
)


def telling(lines: Sequence[str], most: int = 5) -> list[str]:
    """The last few lines of a log that say what went wrong; simply the last ones if none does."""
    said = [line for line in lines if line.strip()]
    wrong = [line for line in said if _WRONG.search(line)]
    return (wrong or said)[-most:]


def of_daemon(lines: Iterator[str], daemon: str) -> Iterator[str]:
    """Those of one daemon: `schedd`, `starter`."""
    return (line for line in lines if line.partition("|")[0].split()[:1] == [daemon])


def merged(streams: Mapping[str, Iterator[str]]) -> Iterator[tuple[str, str]]:
    """Each line with its node, in the order of their times; every stream must end."""
    stamped = (_stamped(node, lines) for node, lines in streams.items())
    return ((node, line) for _, node, line in heapq.merge(*stamped, key=lambda item: item[0]))


def _stamped(node: str, lines: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """A line without a time of its own has that of the one before."""
    stamp = ""
    for line in lines:
        if match := _STAMP.match(line):
            month, day, year, clock = match.groups()
            stamp = f"{year}{month}{day}{clock}"
        yield stamp, node, line


def live(streams: Mapping[str, Callable[[], Iterator[str]]]) -> Iterator[tuple[str, str]]:
    """Each line with its node, as it comes; ends when every stream has ended.

    Each stream is opened and read in a thread of its own. A node that goes away ends its stream.
    """
    lines: queue.Queue[tuple[str, str | None]] = queue.Queue(maxsize=1000)

    def read(node: str, stream: Callable[[], Iterator[str]]) -> None:
        with suppress(RoostError):
            for line in stream():
                lines.put((node, line))
        lines.put((node, None))

    for node, stream in streams.items():
        threading.Thread(target=read, args=(node, stream), daemon=True).start()
    remaining = len(streams)
    while remaining:
        node, line = lines.get()
        if line is None:
            remaining -= 1
        else:
            yield node, line
