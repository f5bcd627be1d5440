"""The queue over an engine that answers as a real access point did."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from roost._run import Completed
from roost.ads import number, read, sentence
from roost.engines.base import Engine
from roost.errors import BadInput, JobError, PoolNotReady
from roost.plan import Ref
from roost.queue import JobId, Queue
from roost.queue import queue as queue_module
from roost_node.vocab import SPOOL_FULL

AP = Ref("node", "physics-submit")
Answer = tuple[int, str, str]


@dataclass
class AccessPoint:
    """Answers each command by the first word of its own or of its script that it knows."""

    answers: dict[str, list[Answer]]
    asked: list[tuple[str, str | None, bytes]] = field(default_factory=list)

    def exec(
        self,
        ref: Ref,
        argv: Sequence[str],
        *,
        user: str | None = None,
        stdin: bytes = b"",
        timeout: float | None = None,
    ) -> Completed:
        assert ref == AP
        command = " ".join(argv)
        key = next(key for key in self.answers if key in command)
        self.asked.append((command, user, stdin))
        waiting = self.answers[key]
        status, out, err = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return Completed(tuple(argv), status, out.encode("latin-1"), err)


def _queue(**answers: Answer | list[Answer]) -> tuple[Queue, AccessPoint]:
    listed = {key: value if isinstance(value, list) else [value] for key, value in answers.items()}
    point = AccessPoint(listed)
    return Queue(cast(Engine, point), "physics", AP, ("john",)), point


def _ads(*ads: dict[str, Any]) -> Answer:
    whole = ({"ClusterId": 7, "ProcId": 0, "Owner": "john", "UserLog": "/x/l"} | ad for ad in ads)
    return 0, json.dumps(list(whole)), ""


NONE = (0, "", "")
ROOT = "/home/john/roost/abc"


@pytest.fixture
def submit_file(tmp_path: Path) -> Path:
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    path = tmp_path / "a.sub"
    path.write_text("executable = run.sh\nqueue 2\n")
    return path


def _dump(folder: Path) -> str:
    there = f"{ROOT}{folder}"
    return f'ClusterId=1\nIwd="{there}"\nCmd="{there}/run.sh"\nProcId=0\n\nProcId=1\n'


def test_submit_sends_the_file_then_what_it_names_then_submits(submit_file: Path) -> None:
    queue, point = _queue(
        mktemp=(0, f"{ROOT}\n", ""),
        dump=(0, _dump(submit_file.parent), ""),
        append=(0, "7.0 - 7.1\n", "\nWARNING: the line 'x = 1' was unused. Is it a typo?\n"),
    )
    done = queue.submit(submit_file)
    assert (done.ids, done.directory) == (("7.0", "7.1"), ROOT)
    assert done.warnings == ("the line 'x = 1' was unused. Is it a typo?",)
    sent = [_names(stdin) for _, _, stdin in point.asked if stdin]
    assert sent[0] == [str(submit_file)[1:]]
    assert f"{str(submit_file.parent)[1:]}/run.sh" in sent[1]
    assert {user for _, user, _ in point.asked} == {"john"}
    assert f'+RoostHostDirectory = "{submit_file.parent}"' in point.asked[-1][0]


def _names(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return members.getnames()


def test_a_file_that_the_language_misses_is_sent_once(submit_file: Path) -> None:
    missing = (1, "", "\nERROR: on Line 2 of submit file: can't open file l: No such file or "
               "directory\n\nERROR: Failed to parse command file (line 2).\n")  # fmt: skip
    (submit_file.parent / "l").write_text("a\n")
    queue, point = _queue(
        mktemp=(0, f"{ROOT}\n", ""), dump=[missing, missing], exec=(0, "", ""), rm=(0, "", "")
    )
    with pytest.raises(BadInput, match=r"^a\.sub:2: can't open file l"):
        queue.submit(submit_file)
    assert sum("dump" in command for command, _, _ in point.asked) == 2
    assert point.asked[-1][0].startswith("sh -c rm -rf"), "nothing is left behind"


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ((1, "", '\nERROR: Invalid log file: "/l"\n'), BadInput, "a.sub: Invalid log file"),
        ((1, "absent:/opt/x\n", ""), BadInput, "a.sub:1: executable: /opt/x is not on the access"),
    ],
)
def test_a_refused_submission_leaves_nothing(
    tmp_path: Path, answer: Answer, error: type[Exception], words: str
) -> None:
    path = tmp_path / "a.sub"
    path.write_text("executable = /opt/x\nqueue\n")
    dump = f'ClusterId=1\nIwd="{ROOT}{tmp_path}"\nCmd="/opt/x"\n'
    queue, point = _queue(
        mktemp=(0, f"{ROOT}\n", ""), dump=(0, dump, ""), append=answer, rm=(0, "", ""),
        health=(0, "healthy\n", ""),
    )  # fmt: skip
    with pytest.raises(error, match=words) as caught:
        queue.submit(path)
    assert "\n" not in str(caught.value)
    assert point.asked[-1][0].endswith(f'rm -rf -- "$1" sh {ROOT}')
    # what the schedd did not refuse it may have taken all the same
    assert ("condor_rm" in point.asked[-1][0]) == (error is JobError)


FULL = "tar: a: Cannot write: No space left on device\n"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"mktemp": (1, "", FULL)}, "no space left for jobs' files in /home on"),
        ({"append": (1, "", FULL)}, "no space left for jobs' files in /home on"),
        ({"append": (1, "", f"\nERROR: Failed to commit job submission into the queue.\nERROR: "
                            f"{SPOOL_FULL}\n")}, f"^{SPOOL_FULL}; see `roost doctor`$"),
        ({"append": (1, "", "\nERROR: Failed to connect to local queue manager\n"),
          "health": (1, "the collector is gone\n", "")}, "did not take the jobs: the collector is"),
        ({"append": (137, "", ""), "health": (137, "", "")}, "ended while it took"),
    ],
    ids=["home", "input", "spool", "health", "killed"],
)  # fmt: skip
def test_an_access_point_that_cannot_take_jobs_says_why(
    submit_file: Path, answers: dict[str, Answer], words: str
) -> None:
    usual = {"mktemp": (0, f"{ROOT}\n", ""), "dump": (0, _dump(submit_file.parent), "")}
    queue, _ = _queue(**usual | answers | {"rm": (0, "", "")})
    with pytest.raises(JobError, match=words):
        queue.submit(submit_file)


def test_waiting_outlasts_an_access_point_that_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    gone = (137, "", "")
    queue, _ = _queue(
        condor_q=[_ads({"JobStatus": 2}), gone, gone, _ads({"JobStatus": 1}), NONE],
        condor_history=[gone, _ads({"JobStatus": 4, "ExitCode": 3, "TotalSubmitProcs": 1})],
    )
    said: list[str] = []
    (result,) = queue.wait(7, interrupted=said.append)
    assert (result.id, result.exit_code) == ("7.0", 3)
    assert len(said) == 2, said  # each silence once: the queue's and the history's


def test_waiting_for_an_access_point_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr(queue_module, "OUTAGE", -1.0)
    queue, _ = _queue(condor_q=[_ads({"JobStatus": 2}), (137, "", "")])
    with pytest.raises(PoolNotReady, match=r"stay in the queue.*`roost wait 7` waits on"):
        queue.wait(7)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((1, "", "\nERROR: Can't find address of local schedd\n"), "local schedd"),
        ((1, "", "\nERROR: \n"), r"a\.sub: it did not say why; see `roost doctor`"),
        ((137, "", ""), "physics-submit ended while it took a.sub, so it is not known whether"),
    ],
)
def test_jobs_that_may_have_been_taken_are_withdrawn_before_their_files(
    submit_file: Path, answer: Answer, words: str
) -> None:
    dump = (0, _dump(submit_file.parent), "")
    queue, point = _queue(mktemp=(0, f"{ROOT}\n", ""), dump=dump, append=answer, totals=NONE,
                          health=(0, "healthy\n", ""))  # fmt: skip
    with pytest.raises(JobError, match=words) as caught:
        queue.submit(submit_file)
    assert "\n" not in str(caught.value)
    # nothing is removed where the schedd does not answer
    assert point.asked[-1][0].startswith("sh -c condor_q -totals >/dev/null || exit\ncondor_rm")


def test_an_interrupted_submission_is_withdrawn(submit_file: Path) -> None:
    queue, point = _queue(mktemp=(0, f"{ROOT}\n", ""), rm=(0, "", ""))
    with pytest.raises(StopIteration):  # the scripted access point knows no other answer
        queue.submit(submit_file)
    assert "condor_rm -constraint" in point.asked[-1][0]


def test_bad_submissions_that_ask_nothing(tmp_path: Path) -> None:
    queue, point = _queue()
    (tmp_path / "b.sub").write_bytes(b"\xff\xfe\x00")
    for path, user, words in (
        (tmp_path / "none.sub", None, "does not exist"),
        (tmp_path, None, "is not a file"),
        (tmp_path / "b.sub", None, "is not text"),
        (tmp_path / "b.sub", "a b", "'a b' is not a user's name"),
    ):
        with pytest.raises(BadInput, match=words):
            queue.submit(path, user=user)
    assert point.asked == []


def test_an_unknown_user(submit_file: Path) -> None:
    queue, _ = _queue(mktemp=(126, "", "unable to find user bob: no matching entries in passwd"))
    with pytest.raises(BadInput, match=r"no user 'bob' on physics-submit; .*john"):
        queue.submit(submit_file, user="bob")


def test_wait_returns_each_jobs_end() -> None:
    running = _ads({"JobStatus": 2}, {"ProcId": 1, "JobStatus": 1})
    queue, _ = _queue(
        condor_wait=[_ads({"JobStatus": 2}), NONE],
        condor_history=_ads(
            {"JobStatus": 4, "ExitCode": 3, "TotalSubmitProcs": 2},
            {"ProcId": 1, "JobStatus": 3, "RemoveReason": "by john", "TotalSubmitProcs": 2},
        ),
        condor_q=running,
    )
    seen: list[list[str]] = []
    results = queue.wait(7, progress=lambda jobs: seen.append([job.state for job in jobs]))
    assert seen == [["running", "idle"], ["running"], []]
    assert [(result.id, result.state, result.exit_code) for result in results] == [
        ("7.0", "completed", 3), ("7.1", "removed", None),
    ]  # fmt: skip


def test_wait_ends_for_a_held_job_unless_told_otherwise() -> None:
    held = _ads({"JobStatus": 5, "HoldReason": "no file r", "HoldReasonCode": 12})
    done = _ads({"JobStatus": 4, "ExitCode": 0})
    queue, _ = _queue(condor_wait=NONE, condor_history=done, condor_q=held)
    with pytest.raises(JobError, match=r"job 7\.0 is held: no file r; an output could not"):
        queue.wait(7)
    assert queue.wait(7, held_ok=True)[0].ok


def test_wait_has_a_deadline() -> None:
    idle = _ads({"JobStatus": 1})
    queue, _ = _queue(condor_wait=idle, condor_q=idle)
    with pytest.raises(JobError, match=r"not done after 0\.3 s, but idle; see `roost why 7\.0`"):
        queue.wait("7", timeout=0.3)


def test_what_is_not_there() -> None:
    queue, _ = _queue(condor_q=NONE, condor_history=NONE)
    calls: tuple[Callable[[], object], ...] = (
        lambda: queue.wait(99),
        lambda: queue.fetch(99),
        lambda: queue.why("99.0"),
        lambda: queue.remove(["99"]),
    )
    for call in calls:
        with pytest.raises(JobError, match="there is no job 99"):
            call()


@pytest.mark.parametrize("text", ["x", "", "7.", ".0", "-1", "7.0.0", "0", "7 8", "٧"])
def test_malformed_ids(text: str) -> None:
    with pytest.raises(BadInput, match="is not a job id"):
        JobId.parse(text)


def test_remove_asks_as_each_owner() -> None:
    queue, point = _queue(
        condor_rm=NONE, condor_q=_ads({}, {"ProcId": 1, "Owner": "mary"}, {"ClusterId": 8})
    )
    assert queue.remove(["7", "8.0"]) == ("7.0", "7.1", "8.0")
    assert [(command.split()[-1], user) for command, user, _ in point.asked[1:]] == [
        ("8.0", "john"), ("7.1", "mary"),
    ]  # fmt: skip


def test_remove_removes_nothing_when_one_is_missing() -> None:
    queue, point = _queue(condor_q=_ads({}))
    with pytest.raises(JobError, match=r"no job 7\.1 in the queue"):
        queue.remove(["7.0", "7.1"])
    assert len(point.asked) == 1


def test_fetch_brings_outputs_beside_the_submit_file_and_cleans_up(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("./o")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    ad = {"JobStatus": 4, "RoostDirectory": ROOT, "RoostHostDirectory": str(tmp_path)}
    tar = (0, buffer.getvalue().decode("latin-1"), "")
    queue, point = _queue(find=tar, rm=NONE, condor_history=_ads(ad), condor_q=NONE)
    assert queue.fetch(7) == (tmp_path / "o",)
    assert (tmp_path / "o").read_text() == "hi"
    assert point.asked[-1][0].startswith("sh -c rm -rf")
    queue, point = _queue(find=tar, condor_q=_ads(ad | {"JobStatus": 2}))
    assert queue.fetch(7) == (tmp_path / "o",), "while it runs, too"
    assert "find" in point.asked[-1][0], "and then its directory stays"


def test_fetch_says_why_it_cannot(tmp_path: Path) -> None:
    queue, _ = _queue(condor_q=_ads({"JobStatus": 4}))
    with pytest.raises(JobError, match="not submitted by roost"):
        queue.fetch(7)
    ad = {"JobStatus": 4, "RoostDirectory": ROOT, "RoostHostDirectory": str(tmp_path)}
    queue, _ = _queue(find=(2, "", "sh: cannot cd"), condor_q=_ads(ad))
    with pytest.raises(JobError, match="not on physics-submit any more"):
        queue.fetch(7)
    with pytest.raises(JobError, match="there is no directory"):
        queue.fetch(7, into=tmp_path / "none")


def test_why_collects_what_it_needs() -> None:
    queue, _ = _queue(
        condor_status=(0, "", ""),
        analyze=(0, "[0]  0  Machine", ""),
        condor_q=_ads({"JobStatus": 1}),
    )
    said = queue.why("7")
    assert (said.id, said.state) == ("7.0", "idle")
    assert said.reasons[0].startswith("there is no executor in the pool")


def test_why_when_the_collector_is_down() -> None:
    queue, _ = _queue(
        condor_status=(1, "", "Error: communication error\nCEDAR:6001:Failed to connect"),
        condor_q=_ads({"JobStatus": 1}),
    )
    assert (
        "the collector does not answer: condor_status on physics-submit failed: Error: commun"
        in (queue.why("7.0").reasons[0])
    )


def test_a_silent_schedd() -> None:
    queue, _ = _queue(condor_q=(1, "", "Error: communication error\n\nExtra Info: You probably"))
    with pytest.raises(
        PoolNotReady, match=r"condor_q on physics-submit failed: .*communication err"
    ):
        queue.jobs()


def test_what_tools_write() -> None:
    assert read("") == read("[\n]\n") == ()
    assert [number(value) for value in (1, 2.5, "x", True, None)] == [1, 2.5, None, None, None]
    assert sentence("") == "it said nothing"
    assert sentence("Warning: old\n\nERROR: bad\n thing.\n\nERROR: again") == "bad thing"
