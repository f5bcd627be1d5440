"""Python work, what decides in it: what goes along, what a log tells, what may be said of a job."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from roost import BadInput
from roost._run import run
from roost.work.access import description, names
from roost.work.bundle import Bundle, bundle
from roost.work.events import JobEvent, events
from roost.work.tasks import Task, settle, tar, untar
from roost.work.workers import chunk

LOG = """\
000 (012.000.000) 2026-11-26 15:00:00 Job submitted from host: <10.0.0.3:9618>
...
001 (012.000.000) 2026-11-26 15:00:01 Job executing on host: <10.0.0.4:9618>
\tSlotName: slot1_1@a
...
012 (012.001.000) 2026-11-26 15:00:02 Job was held.
\tit used 300 MiB of memory
\tCode 21 Subcode 102
...
005 (012.000.000) 2026-11-26 15:00:03 Job terminated.
\t(1) Normal termination (return value 0)
...
009 (013.000.000) 2026-11-26 15:00:04 Job was aborted.
\tvia condor_rm (by user user)
...
005 (014.000.000) 2026-11-26 15:00:05 Job term"""


def test_what_a_log_tells() -> None:
    """An event that is not whole yet is not told."""
    assert list(events(LOG.splitlines())) == [
        JobEvent("running", (12, 0), "SlotName: slot1_1@a"),
        JobEvent("held", (12, 1), "it used 300 MiB of memory"),
        JobEvent("ended", (12, 0), "(1) Normal termination (return value 0)"),
        JobEvent("removed", (13, 0), "via condor_rm (by user user)"),
    ]


def test_a_submit_file_for_tasks() -> None:
    ours = {"executable": "task.sh", "log": "log"}
    text = description(ours, {"request_gpus": 1}, names(["1", "2"]))
    assert text == "request_gpus = 1\nexecutable = task.sh\nlog = log\nqueue name from (\n1\n2\n)\n"
    for bad in ({"Log": "x"}, {"queue": 3}, {"a b": 1}, {"x": "1\nqueue 5"}):
        with pytest.raises(BadInput):
            description(ours, bad, "queue")


def test_many_items_go_in_chunks() -> None:
    assert [chunk(items, 2) for items in (1, 63, 64, 640, 10**6)] == [1, 1, 1, 10, 100]


@pytest.fixture(scope="module")
def taken() -> Bundle:
    return bundle(["yaml", "pydantic"])


def test_what_goes_along(taken: Bundle) -> None:
    there = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    found = {name for name, _ in taken.members}
    # by the name that imports it; with what it needs; and no library of the system's C
    assert {
        "bin/python3", f"{there}/os.py", f"{there}/site-packages/yaml/__init__.py",
        f"{there}/site-packages/pydantic_core/__init__.py",
    } <= found  # fmt: skip
    assert not [name for name in found if "/libc.so" in name or "ld-linux" in name]
    modules = {name for name, _ in taken.library}
    assert {"json/__init__.py", "asyncio/events.py"} <= modules
    assert not [name for name in modules if name.startswith(("test/", "idlelib/", "tkinter/"))]
    assert taken.digest == bundle(["pydantic", "PyYAML"]).digest
    assert taken.digest != bundle(["yaml"]).digest


def test_it_runs_where_it_is_unpacked(tmp_path: Path) -> None:
    archive = bundle(["cloudpickle"]).archive()
    run(["tar", "-xz", "-C", str(tmp_path)], stdin=archive).check()
    python = tmp_path / "python" / "bin" / "python3"
    program = (
        "import cloudpickle, json, os, ssl, sys; print(json.dumps([sys.version, sys.executable, \
json.__file__, cloudpickle.__file__, os.environ.get('LD_LIBRARY_PATH')]))"
    )
    said = run([str(python), "-I", "-c", program]).check().text
    assert said.startswith(f'["{sys.version}'.replace("\n", "\\n"))
    assert said.count(f'"{tmp_path}/python/') == 3
    assert said.rstrip().endswith("null]")
    (zipped,) = (tmp_path / "python").rglob("python*.zip")
    assert "json/__init__.pyc" in zipfile.ZipFile(zipped).namelist()


def test_a_module_of_ones_own_goes_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tools.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = dict(bundle(["my-tools"]).members)
    assert tmp_path / "my_tools.py" in found.values()
    with pytest.raises(BadInput, match="no package 'nothing-like-this'"):
        bundle(["nothing-like-this"])


def test_what_a_task_gave() -> None:
    import cloudpickle

    def came(of: object, traceback: str | None) -> Task:
        task = Task(lambda _: None, "1", b"")
        settle(task, cloudpickle.dumps((of, traceback)))
        return task

    assert came(4, None).result() == 4
    failed = came(ValueError("no"), "Traceback: here").exception()
    assert isinstance(failed, ValueError)
    assert "Traceback: here" in str(failed.__cause__)
    broken = Task(lambda _: None, "1", b"")
    settle(broken, b"\x80nonsense")
    assert broken.exception() is not None


def test_a_cancelled_task_is_told_of_once() -> None:
    told: list[Task] = []
    task = Task(told.append, "1", b"")
    assert task.cancel()
    assert task.cancel()
    assert told == [task]
    settle(task, b"")  # its job had ended just then
    assert task.cancelled()


def test_files_by_name() -> None:
    assert untar(tar({"a": b"1", "b": b""})) == {"a": b"1", "b": b""}
