"""Why a job is where it is."""

from __future__ import annotations

from typing import Any

import pytest

from roost.queue import Facts, Job, JobResult, explain
from roost.queue.explain import ahead, alike, conditions, duration, refusing, together

NOW = 1_800_000_000
JOB: dict[str, Any] = {
    "ClusterId": 7, "ProcId": 0, "Owner": "john", "JobStatus": 1, "Cmd": "/home/john/x/run.sh",
    "Args": "20", "QDate": NOW - 30, "EnteredCurrentStatus": NOW - 30, "ServerTime": NOW,
    "RequestCpus": 1, "RequestMemory": 128, "RequestDisk": "/Expr(DiskUsage)/",
}  # fmt: skip
SLOT: dict[str, Any] = {
    "Name": "slot1@ex-1", "Machine": "ex-1", "PartitionableSlot": True, "State": "Unclaimed",
    "Cpus": 2, "Memory": 2048, "Disk": 10**6, "Start": True,
    "TotalSlotCpus": 2, "TotalSlotMemory": 2048, "TotalSlotDisk": 10**6,
}  # fmt: skip
FULL = SLOT | {"Cpus": 0, "Memory": 1792}
PART: dict[str, Any] = {
    "Name": "slot1_1@ex-1", "Machine": "ex-1", "DynamicSlot": True, "State": "Claimed",
    "Cpus": 2, "Memory": 256, "TotalSlotCpus": 2, "TotalSlotMemory": 256,
}  # fmt: skip


def _why(job: dict[str, Any] | None = None, *slots: dict[str, Any], **facts: Any) -> str:
    return "; ".join(explain(JOB | (job or {}), Facts(slots, **facts)))


def test_idle_without_a_collector_quotes_why() -> None:
    said = explain(JOB, Facts(None, unreachable="condor_status failed: no route"))
    assert said == (
        "nothing can be matched, because the collector does not answer: "
        "condor_status failed: no route",
    )


def test_idle_without_an_executor() -> None:
    assert "no executor in the pool" in _why()


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"RequestMemory": 99999}, ("97.7 GiB of memory", "largest executor has 2048 MiB")),
        ({"RequestCpus": 8}, ("asks for 8 CPUs", "largest executor has 2 CPUs")),
        ({"RequestGPUs": 1}, ("asks for 1 GPU,", "largest executor has 0 GPUs")),
        ({"RequestDisk": 2 * 2**20}, ("2.0 GiB of disk", "has 1.0 GiB of disk")),
    ],
)
def test_idle_because_too_large(request_: dict[str, Any], words: tuple[str, str]) -> None:
    said = _why(request_, SLOT, PART)
    assert all(word in said for word in words), said


def test_idle_because_no_single_executor_has_all() -> None:
    wide = SLOT | {"TotalSlotCpus": 8, "Cpus": 8, "TotalSlotMemory": 512, "Memory": 512}
    said = _why({"RequestCpus": 8, "RequestMemory": 2048}, SLOT, wide)
    assert said == "no single executor has all that it asks for: 8 CPUs, 2048 MiB of memory"


def test_idle_because_of_a_requirement_that_matches_nothing() -> None:
    clauses = ((1, 'TARGET.Arch == "X86_64"'), (0, 'Machine == "nix"'),
               (0, "TARGET.Memory >= RequestMemory"))  # fmt: skip
    assert _why({}, SLOT, conditions=clauses) == (
        'no executor meets this part of its requirements: Machine == "nix"'
    )


def test_idle_because_all_are_busy() -> None:
    assert "is busy (1 slots run jobs)" in _why({}, FULL, PART)
    static = SLOT | {"PartitionableSlot": False, "State": "Claimed"}
    assert "is busy" in _why({}, static)


def test_idle_because_the_executors_are_draining() -> None:
    assert "takes new jobs now: ex-1 is being drained" in _why({}, SLOT | {"State": "Drained"})
    assert "ex-1 is being drained" in _why({}, SLOT | {"Draining": True})
    assert "ex-1 is being drained" in _why({}, SLOT | {"RoostDraining": True})
    assert "ex-1 takes no jobs by its own configuration" in _why({}, SLOT | {"State": "Owner"})


def test_idle_because_the_executor_is_sick_or_pauses() -> None:
    sick = SLOT | {"RoostSick": True, "RoostSickReason": "its last 5 jobs failed"}
    assert "ex-1 is sick: its last 5 jobs failed" in _why({}, sick)
    assert "ex-1 pauses for some seconds" in _why({}, SLOT | {"RoostPaused": True})
    assert "is busy (1 slots run jobs; 1 more take no new jobs)" in _why({}, FULL, PART, sick)


def test_idle_because_executors_refuse_it_themselves() -> None:
    said = _why({}, SLOT, refusing=1)
    assert said == (
        "every executor that is large enough refuses it by its own configuration (START)"
    )


def test_idle_until_a_time_that_it_asked_for() -> None:
    said = _why({"DeferralTime": NOW + 7200, "DeferralPrepTime": 300})
    assert "it asked not to start before 2027-01-1" in said
    assert said.endswith("(deferral_time), in 2.0 h")
    assert "deferral" not in _why({"DeferralTime": NOW + 200}, SLOT)


def test_parts_of_requirements_that_exclude_each_other() -> None:
    clauses = ((1, 'Machine == "a"'), (1, 'Machine == "b"'), (0, "[0] && [1]"))
    assert _why({}, SLOT, SLOT, conditions=clauses) == (
        "no executor meets these parts of its requirements together: "
        'Machine == "a" (rules out 1 of 2), Machine == "b" (rules out 1 of 2)'
    )


def _rejected(reason: str) -> dict[str, Any]:
    return {"LastRejMatchTime": NOW - 5, "LastRejMatchReason": reason}


NEGOTIATOR: dict[str, Any] = {
    "MyType": "Negotiator", "LastHeardFrom": NOW - 5, "LastNegotiationCycleEnd0": NOW - 12,
}  # fmt: skip


def test_idle_because_of_a_limit() -> None:
    assert "as the pool allows use license already" in _why(
        _rejected("concurrency limit license reached "), SLOT
    )
    assert "as much of the pool as priorities and quotas give" in _why(
        _rejected("submitter limit exceeded"), SLOT
    )
    group = {"MyType": "Accounting", "Name": "physics", "EffectiveQuota": 2.0,
             "WeightedResourcesUsed": 2.0}  # fmt: skip
    said = _why({"AcctGroup": "physics"}, SLOT, daemons=[NEGOTIATOR, group])
    assert "its accounting group physics may use 2 CPUs and uses 2" in said
    ceiling = {"MyType": "Accounting", "Name": "john@p", "Ceiling": 1, "WeightedResourcesUsed": 1.0}
    assert "its user may use 1 CPUs at a time" in _why({}, SLOT, daemons=[NEGOTIATOR, ceiling])
    schedd = {"MyType": "Scheduler", "MaxJobsRunning": 10, "TotalRunningJobs": 10}
    assert "runs 10 jobs, and may run 10 at a time" in _why({}, SLOT, daemons=[NEGOTIATOR, schedd])


@pytest.mark.parametrize(
    ("account"),
    [
        {"Name": "physics", "EffectiveQuota": 3.0, "WeightedResourcesUsed": 2.0},
        {"Name": "<none>", "EffectiveQuota": 0.0, "WeightedResourcesUsed": 0.0},
        {"Name": "john@p", "Ceiling": -1, "WeightedResourcesUsed": 1.0},
        {"Name": "mary@p", "Ceiling": 1, "WeightedResourcesUsed": 1.0},
    ],
)
def test_other_limits_are_none(account: dict[str, Any]) -> None:
    said = _why({"AcctGroup": "physics"}, SLOT, daemons=[NEGOTIATOR, account])
    assert "has not looked at it yet" in said


def test_idle_because_the_negotiator_is_gone() -> None:
    assert "the collector knows no negotiator" in _why({}, SLOT, daemons=[])
    late = NEGOTIATOR | {"LastHeardFrom": NOW - 300}
    assert "the negotiator has not been heard of for 5 min" in _why({}, SLOT, daemons=[late])


def test_idle_says_when_the_last_cycle_was_and_who_is_before_it() -> None:
    said = _why({}, SLOT, daemons=[NEGOTIATOR], ahead=(2, 30))
    assert "(its last cycle that is known ended 12 s ago)" in said
    assert said.endswith(
        "; idle jobs that may come before it: 2 of the same user and 30 of others, "
        "who get their share by priority (`condor_userprio`)"
    )
    assert _why({}, FULL, PART, ahead=(2, 0)).endswith("come before it: 2 of the same user")


def test_who_is_ahead() -> None:
    answer = "   3 john true\n  10 john false\n      5 mary false\n      2 mary true\nnonsense\n"
    assert ahead(answer, "john") == (3, 7)


def test_jobs_of_a_cluster_that_are_alike() -> None:
    ads: list[dict[str, Any]] = [
        JOB, JOB | {"ProcId": 1}, JOB | {"ProcId": 2, "RequestMemory": 999},
        JOB | {"ProcId": 3, "JobStatus": 5, "HoldReasonCode": 6},
        JOB | {"ProcId": 4, "JobStatus": 4, "ExitCode": 0, "LastRemoteHost": "slot1_1@a"},
        JOB | {"ProcId": 5, "JobStatus": 4, "ExitCode": 0, "LastRemoteHost": "slot1_1@b"},
        JOB | {"ProcId": 6, "JobStatus": 2, "RemoteHost": "slot1_1@a"},
        JOB | {"ProcId": 7, "JobStatus": 2, "RemoteHost": "slot1_2@a"},
    ]  # fmt: skip
    groups = alike(ads)
    assert [[ad["ProcId"] for ad in group] for group in groups] == [
        [0, 1], [2], [3], [4, 5], [6, 7],
    ]  # fmt: skip
    *_, done, running = [together(group, explain(group[0], Facts(None))) for group in groups]
    assert done == ("they ended with exit code 0: 1 on a, 1 on b",)
    assert running == ("they run: 2 on a",)


def test_idle_and_not_looked_at_yet() -> None:
    assert "has not looked at it yet, 30 s after it was submitted" in _why({}, SLOT)


def test_idle_and_rejected_though_one_is_free() -> None:
    rejected = {"LastRejMatchTime": NOW - 5, "LastRejMatchReason": "no match found "}
    assert "found no match 5 s ago: no match found;" in _why(rejected, SLOT)


def test_idle_and_matched() -> None:
    assert _why({"LastMatchTime": NOW - 1}, SLOT) == "it is matched and about to start"


def test_idle_again_says_what_ended_the_last_run() -> None:
    said = _why({"NumShadowStarts": 2, "VacateReason": "the executor left"}, FULL, PART)
    assert said.endswith("it was started 2 times before; last time: the executor left")


def test_held_has_its_reason_and_advice() -> None:
    said = explain(
        JOB | {"JobStatus": 5, "HoldReason": "no file r", "HoldReasonCode": 12}, Facts(None)
    )
    assert said[0] == "it has been held for 30 s: no file r"
    assert "transfer_output_files" in said[1]
    said = explain(JOB | {"JobStatus": 5, "HoldReasonCode": 999}, Facts(None))
    assert said[1] == "release it with condor_release when the cause is gone"


@pytest.mark.parametrize(
    ("ad", "said"),
    [
        ({"JobStatus": 2, "RemoteHost": "slot1_1@ex-1"}, "running on slot1_1@ex-1 for 30 s"),
        ({"JobStatus": 6, "RemoteHost": "slot1_1@ex-1"}, "outputs are being brought back"),
        ({"JobStatus": 7, "RemoteHost": "slot1_1@ex-1"}, "suspended on slot1_1@ex-1"),
        ({"JobStatus": 3, "RemoveReason": "via condor_rm"}, "removed: via condor_rm"),
        (
            {"JobStatus": 4, "ExitCode": 3, "LastRemoteHost": "slot1@a", "RemoteWallClockTime": 20},
            "it ended with exit code 3 on slot1@a after 20 s",
        ),
        (
            {"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9, "ExitCode": 0},
            "killed by signal 9",
        ),
        ({"JobStatus": 99}, "does not know"),
    ],
)
def test_other_states(ad: dict[str, Any], said: str) -> None:
    assert said in "; ".join(explain(JOB | ad, Facts(None)))


def test_a_job_reads_its_ad() -> None:
    job = Job.from_ad(
        JOB | {"JobStatus": 2, "RemoteWallClockTime": 10.0, "JobCurrentStartDate": NOW - 5}
    )
    assert (job.id, job.state, job.command, job.run_time) == ("7.0", "running", "run.sh 20", 15)


def test_an_exit_code_of_an_earlier_run_is_not_a_result() -> None:
    assert Job.from_ad(JOB | {"JobStatus": 5, "ExitCode": 3}).exit_code is None


def test_results() -> None:
    done = JobResult.from_job(Job.from_ad(JOB | {"JobStatus": 4, "ExitCode": 0}))
    killed = JobResult.from_job(
        Job.from_ad(JOB | {"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 11})
    )
    removed = JobResult.from_job(Job.from_ad(JOB | {"JobStatus": 3, "RemoveReason": "by john"}))
    assert [result.ok for result in (done, killed, removed)] == [True, False, False]
    assert [str(result) for result in (done, killed, removed)] == [
        "7.0 ended with exit code 0", "7.0 was killed by signal 11", "7.0 was removed: by john",
    ]  # fmt: skip


def test_the_table_of_better_analyze() -> None:
    table = """
         Slots
Step    Matched  Condition
-----  --------  ---------
[0]           0  Machine == "nix"
[9]           3  TARGET.FileSystemDomain == MY.FileSystemDomain
[10]          1  [0] && [9]

No successful match recorded.
"""
    assert conditions(table)[:2] == (
        (0, 'Machine == "nix"'),
        (3, "TARGET.FileSystemDomain == MY.FileSystemDomain"),
    )


def test_a_joined_clause_names_the_places_of_its_parts() -> None:
    table = """
[0]           1  Machine == "a"
[5]           1  Name == "b"
[6]           0  [0] && [5]
      2 reject your job because of their own requirements
"""
    assert conditions(table)[2] == (0, "[0] && [1]")
    assert (refusing(table), refusing("")) == (2, 0)


def test_the_table_has_another_column_while_slots_are_drained() -> None:
    table = "[0]           0        1  Machine == 3\n[5]           2        0  2 == Cpus\n"
    assert conditions(table) == ((0, "Machine == 3"), (2, "2 == Cpus"))


def test_durations() -> None:
    assert [duration(value) for value in (0, 119, 600, 9000)] == ["0 s", "119 s", "10 min", "2.5 h"]


def test_idle_because_nobody_can_mount_its_data() -> None:
    asks = {"RoostMounts": "lab , https_url", "Requirements": "HasDataMounts"}
    able = SLOT | {"HasDataMounts": True, "DataMountNames": "lab,https_url"}
    half = SLOT | {"HasDataMounts": True, "DataMountNames": "lab",
                   "DataMountsProblem": "https_url: the image has no rclone"}  # fmt: skip
    none = SLOT | {"HasDataMounts": False, "DataMountsProblem": "the container has no /dev/fuse"}
    assert _why(asks, half, none) == (
        "no executor can mount https_url: https_url: the image has no rclone; "
        "the container has no /dev/fuse"
    )
    assert _why(asks, SLOT) == "no executor can mount https_url, lab"
    other = able | {"DataMountNames": "https_url"}
    assert _why(asks, half, other).startswith("no executor can mount all of https_url, lab")
    assert "mount" not in _why(asks, half, able)
    assert "mount" not in _why({}, none)
    private = {"RoostMounts": "", "Requirements": "TARGET.HasDataMounts =?= true"}
    assert _why(private, none).startswith("no executor can mount data")
