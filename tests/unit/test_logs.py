"""Daemon logs → one stream: nothing lost over rotation, restarts and partial lines."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from roost_node import logs


class Stream:
    """A relay over a directory, and what it has written so far."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "log"
        self.directory.mkdir()
        self.state = directory / "offsets"
        self.out = b""
        self.relay = self.start()

    def start(self) -> logs.Relay:
        return logs.Relay(str(self.directory), str(self.state), logs.line_as_text, self.take)

    def take(self, data: bytes) -> None:
        self.out += data

    def write(self, name: str, text: str) -> None:
        with (self.directory / name).open("a") as file:
            file.write(text)

    def rotate(self, name: str) -> None:
        (self.directory / name).rename(self.directory / f"{name}.old")

    def lines(self) -> list[str]:
        self.relay.turn()
        return self.out.decode().splitlines()


@pytest.fixture
def stream(tmp_path: Path) -> Stream:
    return Stream(tmp_path)


@pytest.mark.parametrize(
    ("filename", "daemon"),
    [
        ("MasterLog", "master"),
        ("SchedLog", "schedd"),
        ("StartLog", "startd"),
        ("StarterLog.slot1_2", "starter slot1_2"),
        ("ShadowLog", "shadow"),
        ("SharedPortLog", "shared_port"),
        ("SshdLog", "sshd"),
        ("SchedLog.old", ""),
        ("StarterLog.slot1_1.old", ""),
        ("InstanceLock", ""),
    ],
)
def test_labels_are_the_daemons_names(filename: str, daemon: str) -> None:
    assert logs.label(filename) == daemon


def test_lines_are_labelled_and_partial_ones_wait(stream: Stream) -> None:
    stream.write("SchedLog", "one\ntw")
    assert stream.lines() == ["schedd | one"]
    stream.write("SchedLog", "o\n")
    assert stream.lines() == ["schedd | one", "schedd | two"]


def test_rotation_loses_nothing(stream: Stream) -> None:
    stream.write("StartLog", "1\n")
    stream.lines()
    stream.write("StartLog", "2\n")
    stream.rotate("StartLog")
    stream.write("StartLog", "3\n")
    # A process that still holds the old file:
    stream.write("StartLog.old", "late\n")
    assert sorted(stream.lines()) == ["startd | 1", "startd | 2", "startd | 3", "startd | late"]
    stream.write("StartLog.old", "later\n")
    assert "startd | later" in stream.lines()


def test_a_new_relay_goes_on_where_the_old_one_ended(stream: Stream) -> None:
    stream.write("StartLog", "1\n")
    stream.lines()
    stream.write("StartLog", "2\n")
    stream.rotate("StartLog")
    stream.write("StartLog", "3\n")
    stream.relay = stream.start()
    assert stream.lines() == ["startd | 1", "startd | 2", "startd | 3"]


def test_a_relay_that_died_before_it_noted_its_place_repeats_and_loses_none(stream: Stream) -> None:
    stream.write("StartLog", "1\n")
    stream.lines()
    noted = stream.state.read_text()
    stream.write("StartLog", "2\n")
    stream.lines()
    stream.state.write_text(noted)
    stream.relay = stream.start()
    assert stream.lines() == ["startd | 1", "startd | 2", "startd | 2"]


def test_a_line_longer_than_the_buffer_is_not_kept_back(stream: Stream) -> None:
    stream.write("StartLog", "x" * 600_000 + "\n")
    assert stream.lines()
    assert stream.out.count(b"x") == 600_000


def test_json_lines_carry_time_daemon_slot_and_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    line = logs.line_as_json("starter slot1_2", '11/22/26 18:54:29 said "hi"')
    assert json.loads(line) == {
        "time": "2026-11-22T18:54:29Z",
        "daemon": "starter",
        "slot": "slot1_2",
        "message": 'said "hi"',
    }
    assert json.loads(logs.line_as_json("schedd", "no stamp"))["message"] == "no stamp"


def test_the_thread_follows_until_its_end_and_relays_the_rest(tmp_path: Path) -> None:
    directory = tmp_path / "log"
    told = threading.Event()
    out: list[bytes] = []
    heard: list[tuple[str, str]] = []

    def take(data: bytes) -> None:
        out.append(data)
        told.set()

    relay = logs.relay(
        str(directory),
        str(tmp_path / "state"),
        lambda daemon, line: heard.append((daemon, line)),
        as_json=False,
        out=take,
    )
    with relay, (directory / "StartLog").open("w") as log:
        for number in range(50):
            log.write(f"{number}\n")
            log.flush()
            if number == 20:
                assert told.wait(20), "nothing was relayed while the log was written"
    lines = b"".join(out).decode().splitlines()
    assert lines == [f"startd | {number}" for number in range(50)]
    assert heard == [("startd", str(number)) for number in range(50)]
