"""What the kernel asks of a mounted space: the operations of FUSE, as mfusepy calls them."""

# ruff: noqa: ARG002 - what they are called with is not theirs to choose

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from roost_node.data.onedata.files import File, Reader
from roost_node.data.onedata.space import Attributes, Space

#: Blocks that are fetched at once, for all files together.
_AT_ONCE: Final = 3
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
_SECOND: Final = 10**9


class Files:
    """A mounted space. Threads call it; an OSError is what the program gets that asked."""

    use_ns = True

    def __init__(self, space: Space, *, write: bool) -> None:
        self._space = space
        self._write = write
        self._pool = ThreadPoolExecutor(_AT_ONCE)
        self._lock = threading.Lock()
        self._files: dict[str, File] = {}
        self._handles: dict[int, tuple[File, Reader]] = {}
        self._number = 0
        #: What could not be written, and why; empty if all is there.
        self.missing: list[str] = []

    # --- names ---------------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        found = self._space.attributes(path)
        with self._lock:
            file = self._files.get(path)
        return self._stat(found, found.size if file is None else file.size)

    def _stat(self, found: Attributes, size: int) -> dict[str, Any]:
        # Onedata decides who may do what; to the job its owner's rights are everybody's together.
        rights = found.mode & 0o777
        rights |= (rights << 3 | rights << 6) & 0o700
        if not self._write:
            rights &= 0o555
        kind = stat.S_IFDIR if found.directory else stat.S_IFREG
        times = dict.fromkeys(("st_mtime", "st_ctime", "st_atime"), found.mtime * _SECOND)
        return {"st_mode": kind | rights, "st_nlink": 2 if found.directory else 1,
                "st_size": 0 if found.directory else size, "st_blocks": -(-size // 512),
                "st_uid": os.getuid(), "st_gid": os.getgid(), **times}  # fmt: skip

    def readdir(self, path: str, fh: int) -> Iterator[tuple[str, int, int]]:
        yield ".", stat.S_IFDIR, 0
        yield "..", stat.S_IFDIR, 0
        for child in self._space.listing(path):
            yield child.name, stat.S_IFDIR if child.directory else stat.S_IFREG, 0

    def statfs(self, path: str) -> dict[str, int]:
        # Onedata does not say how much room there is: much, so that nothing refuses to begin.
        size = 1 << 20
        return {"f_bsize": size, "f_frsize": size, "f_blocks": 1 << 30, "f_bfree": 1 << 30,
                "f_bavail": 1 << 30, "f_namemax": 255}  # fmt: skip

    def mkdir(self, path: str, mode: int) -> int:
        self._must_write()
        self._space.create(path, directory=True, mode=mode & 0o777)
        return 0

    def rmdir(self, path: str) -> int:
        self._must_write()
        self._space.remove(path, directory=True)
        return 0

    def unlink(self, path: str) -> int:
        self._must_write()
        self._space.remove(path)
        with self._lock:
            file = self._files.pop(path, None)
        if file is not None:
            file.abandon()
        return 0

    def rename(self, old: str, new: str) -> int:
        self._must_write()
        with self._lock:
            moved = [path for path in self._files if f"{path}/".startswith(f"{old}/")]
            files = [self._files[path] for path in moved]
        for file in files:
            file.flush()
        self._space.move(old, new)
        with self._lock:
            replaced = self._files.pop(new, None)
            for path, file in zip(moved, files, strict=True):
                self._files.pop(path, None)
                self._files[new + path.removeprefix(old)] = file
        if replaced is not None:
            replaced.abandon()
        return 0

    def chmod(self, path: str, mode: int) -> int:
        self._must_write()
        self._space.change_mode(path, mode)
        return 0

    def chown(self, path: str, uid: int, gid: int) -> int:
        if uid not in (-1, 2**32 - 1, os.getuid()) or gid not in (-1, 2**32 - 1, os.getgid()):
            raise OSError(errno.EPERM, "Onedata decides who owns it")
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        # Onedata sets its times itself; `touch` and `cp -p` are right to go on.
        self._must_write()
        return 0

    def _must_write(self) -> None:
        if not self._write:
            raise OSError(errno.EROFS, "mounted read-only")

    # --- content -------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        if flags & _WRITING:
            self._must_write()
        found = self._space.attributes(path)
        if found.directory:
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        handle = self._opened(path, found)
        if flags & os.O_TRUNC:
            self._handles[handle][0].truncate(0)
            self._space.resized(path, 0)
        return handle

    def create(self, path: str, mode: int) -> int:
        self._must_write()
        return self._opened(path, self._space.create(path, mode=mode & 0o777))

    def _opened(self, path: str, found: Attributes) -> int:
        with self._lock:
            file = self._files.get(path)
            if file is None or file.id != found.id:
                file = self._files[path] = File(self._space, found.id, found.size, self._pool)
            file.handles += 1
            self._number += 1
            self._handles[self._number] = file, file.reader()
            return self._number

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        file, reader = self._handles[fh]
        return file.read(reader, offset, size)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return self._handles[fh][0].write(data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        self._must_write()
        handle = self.open(path, os.O_RDWR) if fh is None else fh
        try:
            self._handles[handle][0].truncate(length)
            self._space.resized(path, length)
        finally:
            if fh is None:
                self.release(path, handle)
        return 0

    def flush(self, path: str, fh: int) -> int:
        """At each close: what fails here, `close` says to the program."""
        file = self._handles[fh][0]
        file.flush()
        self._space.resized(path, file.size)
        return 0

    def fsync(self, path: str, datasync: int, fh: int) -> int:
        return self.flush(path, fh)

    def release(self, path: str, fh: int) -> int:
        with self._lock:
            file, reader = self._handles.pop(fh)
            file.close(reader)
            file.handles -= 1
            # What could not be written is kept, and tried once more at the end.
            if file.handles == 0 and not file.unwritten:
                for known in [known for known, each in self._files.items() if each is file]:
                    del self._files[known]
        return 0

    def destroy(self, path: str) -> None:
        """Unmounted: the last chance of what could not be written."""
        for known, file in sorted(self._files.items()):
            try:
                file.flush()
            except OSError as error:
                self.missing.append(f"{known.strip('/')} ({error.strerror})")
        self._pool.shutdown(wait=False, cancel_futures=True)
