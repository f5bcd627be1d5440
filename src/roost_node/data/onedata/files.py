"""Open files: read ahead of a program that reads on, written in pieces as large as can be.

Onedata has no open files, only requests; each costs a round trip. So a program that reads a file
from its beginning finds the next blocks fetched already, and what it writes is collected until
there is enough of it, or until it closes the file.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Final, Protocol

#: One request's worth of a file, and how many of them are fetched ahead.
BLOCK: Final = 4 << 20
AHEAD: Final = 2
#: Reads that follow each other until blocks are fetched, where a program begins in the middle.
_IN_ORDER: Final = 2
#: A file whose end is cut off is written anew: no more than this.
_CUT: Final = 256 << 20

Fetch = Callable[[int, int], bytes]


class Store(Protocol):
    """What files need of a space."""

    def content(self, id_: str, start: int, size: int) -> bytes: ...
    def put(self, id_: str, data: bytes, offset: int | None) -> None: ...


class Reader:
    """The reads of one handle. Threads call it, and not in order: the kernel reads ahead, too."""

    def __init__(self, fetch: Fetch, pool: Executor) -> None:
        self._fetch = fetch
        self._pool = pool
        self._lock = threading.Lock()
        self._blocks: dict[int, Future[bytes]] = {}
        self._depth = 0
        self._next = 0
        self._in_order = _IN_ORDER

    def read(self, offset: int, size: int, length: int) -> bytes:
        """What stands there in a file of `length`. Raises OSError."""
        end = min(offset + size, length)
        if offset >= end:
            return b""
        first, last = offset // BLOCK, (end - 1) // BLOCK
        with self._lock:
            self._in_order = self._in_order + 1 if offset == self._next else 0
            self._next = end
            if not self._goes_on(first):
                blocks = None
            else:
                blocks = [self._block(number, length) for number in range(first, last + 1)]
                self._ahead(last, length)
        if blocks is None:
            return self._fetch(offset, end - offset)
        try:
            parts = [future.result() for future in blocks]
        except OSError:
            self.drop()  # a block that failed is asked for again
            raise
        start = offset - first * BLOCK
        if len(parts) == 1:
            return parts[0][start : start + end - offset]
        return b"".join(parts)[start : start + end - offset]

    def drop(self) -> None:
        """Forget what was fetched."""
        with self._lock:
            self._blocks.clear()
            self._depth = 0

    def _goes_on(self, block: int) -> bool:
        return block in self._blocks or block - 1 in self._blocks or self._in_order >= _IN_ORDER

    def _block(self, number: int, length: int) -> Future[bytes]:
        if number not in self._blocks:
            start = number * BLOCK
            self._blocks[number] = self._pool.submit(self._fetch, start, min(BLOCK, length - start))
        return self._blocks[number]

    def _ahead(self, last: int, length: int) -> None:
        """More ahead with each block that was read to its end: a header alone costs one block."""
        for number in [number for number in self._blocks if number < last - 1]:
            del self._blocks[number]
            self._depth = min(self._depth + 1, AHEAD)
        self._depth = max(self._depth, 1 if last > 0 else 0)
        for number in range(last + 1, last + 1 + self._depth):
            if number * BLOCK < length:
                self._block(number, length)


class File:
    """One file that somebody has open, for all that have."""

    def __init__(self, store: Store, id_: str, size: int, pool: Executor) -> None:
        self._store = store
        self._pool = pool
        self.id = id_
        self.size = size
        self.handles = 0
        self.lock = threading.RLock()
        self._start = 0
        self._data = bytearray()
        self._readers: set[Reader] = set()

    @property
    def unwritten(self) -> bool:
        """Whether Onedata has not got all that was written."""
        return bool(self._data)

    def reader(self) -> Reader:
        found = Reader(lambda start, size: self._store.content(self.id, start, size), self._pool)
        self._readers.add(found)
        return found

    def close(self, reader: Reader) -> None:
        self._readers.discard(reader)
        reader.drop()

    def read(self, reader: Reader, offset: int, size: int) -> bytes:
        if self._data:
            self.flush()
        return reader.read(offset, size, self.size)

    def write(self, data: bytes, offset: int) -> int:
        """Collect it; what is enough or does not follow goes to Onedata. Raises OSError."""
        with self.lock:
            at = offset - self._start
            if self._data and (not 0 <= at <= len(self._data) or len(self._data) >= BLOCK):
                self.flush()
            if not self._data:
                self._start, at = offset, 0
                for reader in self._readers:
                    reader.drop()
            self._data[at : at + len(data)] = data
            self.size = max(self.size, offset + len(data))
            return len(data)

    def flush(self) -> None:
        """Onedata has all that was written, after this. Raises OSError; then it is kept."""
        with self.lock:
            if self._data:
                self._store.put(self.id, bytes(self._data), self._start)
                self._data.clear()
                for reader in self._readers:
                    reader.drop()

    def truncate(self, size: int) -> None:
        with self.lock:
            if size == 0:
                self._data.clear()  # nobody will read it
                self._store.put(self.id, b"", None)
            else:
                self.flush()
                if size > self.size:
                    self._store.put(self.id, b"\0", size - 1)
                elif size < self.size:
                    self._cut(size)
            self.size = size
            for reader in self._readers:
                reader.drop()

    def _cut(self, size: int) -> None:
        if size > _CUT:
            raise OSError(errno.EFBIG, "Onedata cannot cut off the end of a file as large")
        self._store.put(self.id, self._store.content(self.id, 0, size), None)

    def abandon(self) -> None:
        """It was removed: nothing is owed any more."""
        with self.lock:
            self._data.clear()
