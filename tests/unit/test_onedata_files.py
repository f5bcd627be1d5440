"""Files of a space: what is asked of Onedata for what programs do, and what they get."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import onedata_bench
from onedata_bench import TOKEN
from onedata_stub import Stub
from roost_node.data.onedata import space as space_module
from roost_node.data.onedata.files import AHEAD, BLOCK, Reader
from roost_node.data.onedata.operations import Files

Both = tuple[Stub, Files]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    monkeypatch.setattr(space_module, "_PAUSES", (0.01, 0.01))
    with onedata_bench.running(tmp_path) as (stub, ca):
        files = Files(onedata_bench.space(stub, ca), write=True)
        yield stub, files
        files.destroy("/")


def _content(files: Files, path: str) -> bytes:
    handle = files.open(path, os.O_RDONLY)
    size = files.getattr(path)["st_size"]
    data = files.read(path, size + 1, 0, handle)
    files.release(path, handle)
    return data


def test_all_of_a_large_directory_is_listed_with_few_requests(both: Both) -> None:
    stub, files = both
    for number in range(2500):
        stub.space.write(f"many/f{number}", b"x")
    names = [name for name, _, _ in files.readdir("/many", 0)]
    assert len(set(names)) == 2502
    before = len(stub.seen)
    assert files.getattr("/many/f2499")["st_size"] == 1
    assert len(stub.seen) == before, "what was listed is not asked for again"


def test_names_that_urls_would_misread(both: Both) -> None:
    stub, files = both
    path = "/a b#c?d%20é&+/f;x"
    stub.space.write(path, b"here")
    assert _content(files, path) == b"here"
    files.rename(path, "/a b#c?d%20é&+/ß?")
    assert _content(files, "/a b#c?d%20é&+/ß?") == b"here"


def test_what_is_written_is_there_after_close(both: Both) -> None:
    stub, files = both
    files.mkdir("/out", 0o755)
    handle = files.create("/out/f", 0o640)
    piece = bytes(range(256)) * 512
    count = BLOCK // len(piece) + 3
    for number in range(count):
        assert files.write("/out/f", piece, number * len(piece), handle) == len(piece)
    assert files.getattr("/out/f")["st_size"] == count * len(piece)
    files.flush("/out/f", handle)
    files.release("/out/f", handle)
    assert stub.space.find("out/f").data == piece * count
    assert stub.space.find("out/f").mode == "640"
    puts = [line for line in stub.seen if line.startswith("PUT") and "/content" in line]
    assert len(puts) == 2, "a request a block, not one a write"


def test_a_program_reads_what_it_wrote_before_it_closed(both: Both) -> None:
    _, files = both
    handle = files.create("/f", 0o600)
    files.write("/f", b"hello", 0, handle)
    files.write("/f", b"J", 0, handle)
    files.write("/f", b"far", 100, handle)
    assert files.read("/f", 200, 0, handle) == b"Jello" + bytes(95) + b"far"
    files.truncate("/f", 3, handle)
    files.write("/f", b"ly", 3, handle)
    assert files.read("/f", 200, 0, handle) == b"Jelly"
    files.truncate("/f", 7)
    assert files.read("/f", 200, 0, handle) == b"Jelly\0\0"
    handle = files.open("/f", os.O_WRONLY | os.O_TRUNC)
    assert files.getattr("/f")["st_size"] == 0


def test_a_write_that_fails_is_said_at_close_and_tried_again_at_the_end(both: Both) -> None:
    stub, files = both
    handle = files.create("/f", 0o600)
    files.write("/f", b"precious", 0, handle)
    with stub.misbehaving(refuse_writes="enospc"):
        with pytest.raises(OSError) as failed:
            files.flush("/f", handle)
        files.release("/f", handle)
    assert failed.value.errno == errno.ENOSPC
    files.destroy("/")
    assert files.missing == []
    assert stub.space.find("f").data == b"precious"


def test_what_is_missing_at_the_end_is_named(both: Both) -> None:
    stub, files = both
    for name in ("kept", "removed"):
        handle = files.create(f"/{name}", 0o600)
        files.write(f"/{name}", b"x", 0, handle)
    files.unlink("/removed")
    with stub.misbehaving(refuse_writes="edquot"):
        files.destroy("/")
    assert len(files.missing) == 1
    assert files.missing[0].startswith("kept (")


def test_what_was_renamed_before_it_was_closed(both: Both) -> None:
    stub, files = both
    files.mkdir("/a", 0o755)
    handle = files.create("/a/f", 0o600)
    files.write("/a/f", b"one", 0, handle)
    files.rename("/a", "/b")
    files.write("/b/f", b"two", 3, handle)
    files.flush("/b/f", handle)
    assert stub.space.find("b/f").data == b"onetwo"


def test_a_directory_goes_only_when_it_is_empty(both: Both) -> None:
    stub, files = both
    stub.space.write("d/f", b"x")
    _refused(errno.ENOTEMPTY, files.rmdir, "/d")
    _refused(errno.EISDIR, files.unlink, "/d")
    _refused(errno.ENOTDIR, files.rmdir, "/d/f")
    assert stub.space.find("d/f").data == b"x"
    files.unlink("/d/f")
    files.rmdir("/d")
    _refused(errno.ENOENT, files.getattr, "/d")


def test_a_mount_that_is_read_only_changes_nothing(both: Both) -> None:
    stub, files = both
    stub.space.write("f", b"x")
    files._write = False
    for call in (
        lambda: files.create("/g", 0o600), lambda: files.mkdir("/g", 0o700),
        lambda: files.unlink("/f"), lambda: files.rename("/f", "/g"),
        lambda: files.truncate("/f", 0), lambda: files.open("/f", os.O_WRONLY),
        lambda: files.chmod("/f", 0o600), lambda: files.rmdir("/f"),
    ):  # fmt: skip
        _refused(errno.EROFS, call)
    assert list(stub.space.root.children) == ["f"]
    assert stat.S_IMODE(files.getattr("/f")["st_mode"]) == 0o444


def test_a_connection_that_breaks_is_made_again(both: Both) -> None:
    stub, files = both
    data = os.urandom(3 * BLOCK + 17)
    stub.space.write("f", data)
    stub.behave(resets=2)
    assert _content(files, "/f") == data
    assert stub.behaviour.resets == 0


def test_a_provider_that_hangs_becomes_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with onedata_bench.running(tmp_path) as (stub, ca):
        stub.space.write("f", b"x" * 100)
        space = onedata_bench.space(stub, ca, timeout=0.1)
        monkeypatch.setattr(space_module, "_PAUSES", ())
        with stub.misbehaving(hang=True):
            _refused(errno.EHOSTDOWN, _content, Files(space, write=False), "/f")


def test_a_token_that_expires_meanwhile(both: Both) -> None:
    stub, files = both
    stub.space.write("f", b"x")
    files.getattr("/f")
    stub.tokens[TOKEN] = 1.0
    _refused(errno.EKEYEXPIRED, _content, files, "/f")


def _refused(number: int, call: object, *args: object) -> None:
    assert callable(call)
    with pytest.raises(OSError) as refused:
        call(*args)
    assert refused.value.errno == number


class Fetched:
    """Content made up, and what of it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def __call__(self, start: int, size: int) -> bytes:
        self.asked.append((start, size))
        return bytes((start + at) // 4096 % 251 for at in range(0, size, 4096)) * 4096


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def test_a_program_that_reads_on_finds_blocks_fetched_ahead(pool: ThreadPoolExecutor) -> None:
    fetched = Fetched()
    reader = Reader(fetched, pool)
    length = 20 * BLOCK
    for offset in range(0, 10 * BLOCK, BLOCK // 4):
        assert len(reader.read(offset, BLOCK // 4, length)) == BLOCK // 4
    pool.shutdown()
    assert sorted(fetched.asked) == [(n * BLOCK, BLOCK) for n in range(10 + AHEAD)]


def test_a_header_costs_one_block_and_a_look_in_the_middle_no_more(
    pool: ThreadPoolExecutor,
) -> None:
    fetched = Fetched()
    reader = Reader(fetched, pool)
    reader.read(0, 4096, 20 * BLOCK)
    reader.read(7 * BLOCK + 4096, 4096, 20 * BLOCK)
    reader.read(20 * BLOCK - 10, 4096, 20 * BLOCK)
    assert reader.read(20 * BLOCK, 4096, 20 * BLOCK) == b""
    assert fetched.asked == [(0, BLOCK), (7 * BLOCK + 4096, 4096), (20 * BLOCK - 10, 10)]
