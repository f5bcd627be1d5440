"""Commands about jobs: submit, wait, q, rm, why."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from roost.cli.common import FEW, ago, json_option, pooled, print_json, print_table, shown
from roost.pool import Pool
from roost.progress import Stage
from roost.queue import Batch, Job, JobResult, Queue

user_option = click.option("--user", metavar="U", help="The pool's user; its first by default.")
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="S", help="Give up after S seconds."
)


@click.command()
@click.argument("file", metavar="FILE.sub", type=click.Path(path_type=Path))
@user_option
@click.option("--wait", "waiting", is_flag=True, help="Wait for the end; bring the outputs back.")
@timeout_option
@json_option
@pooled
def submit(
    pool: Pool,
    file: Path,
    user: str | None,
    waiting: bool,
    timeout: float | None,
    as_json: bool,
) -> int:
    """Submit the jobs that FILE.sub describes; the input files that it names go along.

    With --wait their outputs come back beside FILE.sub, and the exit status is 1 if a job failed;
    without it, `roost wait ID` does that later.
    """
    queue = pool.queue
    submitted = queue.submit(file, user=user)
    for warning in submitted.warnings:
        print(f"roost: HTCondor warns: {warning}", file=sys.stderr)
    for name in submitted.stays:
        print(f"roost: {name} lies outside {file.parent}, so it will not come back; "
              "name it relative to the submit file", file=sys.stderr)  # fmt: skip
    if waiting:
        return _finish(queue, [str(submitted.cluster)], timeout, as_json)
    if as_json:
        print_json({"cluster": submitted.cluster, "jobs": submitted.ids})
    else:
        count = "1 job" if submitted.procs == 1 else f"{submitted.procs} jobs"
        print(f"{count} submitted as {submitted.cluster}; `roost wait {submitted.cluster}` waits.")
    return 0


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@timeout_option
@json_option
@pooled
def wait(pool: Pool, ids: tuple[str, ...], timeout: float | None, as_json: bool) -> int:
    """Wait until every job of the clusters ID has ended, and bring their outputs back.

    The exit status is 1 if one of the jobs failed.
    """
    return _finish(pool.queue, ids, timeout, as_json)


def _finish(queue: Queue, ids: Sequence[str], timeout: float | None, as_json: bool) -> int:
    results: list[JobResult] = []
    files: list[Path] = []
    with shown() as progress:
        for cluster in ids:
            results += queue.wait(
                cluster,
                timeout=timeout,
                progress=lambda jobs, cluster=cluster: progress(Stage(_doing(cluster, jobs))),  # type: ignore[misc]
                interrupted=lambda why: progress(
                    Stage(f"{why}; waiting for it: `roost up` starts what does not run")
                ),
            )
            files += queue.fetch(cluster)
    if as_json:
        print_json({"jobs": results, "files": files})
    else:
        for result in results:
            print(f"Job {result}.")
        for file in files:
            print(file)
    return 0 if all(result.ok for result in results) else 1


def _doing(cluster: str, jobs: Sequence[Job]) -> str:
    """`job 7: 3 idle, 1 running`."""
    return f"job {cluster}: {_counts(Counter(job.state for job in jobs)) or 'done'}"


@click.command()
@click.option("--user", metavar="U", help="Only this user's jobs.")
@click.option("--all", "ended", is_flag=True, help="Also the jobs that ended.")
@click.option("--each", is_flag=True, help="Each job in a line of its own, however many.")
@json_option
@pooled
def q(pool: Pool, user: str | None, ended: bool, each: bool, as_json: bool) -> None:
    """List the jobs in the queue; of more than 100, what was submitted together in one line."""
    queue = pool.queue
    most = None if each or as_json else FEW + 1
    now = queue.jobs(user=user, most=most)
    if most is not None and len(now) > FEW:
        _in_short(queue.batches(user=user))
        now = ()
        if not ended:
            return
    jobs = {job.id: job for job in (*(queue.history(user=user) if ended else ()), *now)}
    if as_json:
        print_json(list(jobs.values()))
    elif not jobs:
        print("The queue is empty." if user is None else f"{user} has no jobs in the queue.")
    else:
        head = ("ID", "OWNER", "STATE", "RUN TIME", "SUBMITTED", "HOST", "COMMAND")
        print_table(head, [_row(job) for job in jobs.values()])


def _in_short(batches: Sequence[Batch]) -> None:
    """What was submitted together in one line each, the last of them; then all in one."""
    head = ("CLUSTER", "OWNER", "JOBS", "SUBMITTED", "COMMAND")
    rows = [
        (str(batch.cluster), batch.owner, _counts(batch.states), _when(batch.submitted),
         batch.command)
        for batch in batches[-FEW:]
    ]  # fmt: skip
    if older := batches[:-FEW]:
        total: Counter[str] = Counter()
        for batch in older:
            total.update(batch.states)
        rows.insert(0, (f"{len(older)} older", "", _counts(total), "", ""))
    print_table(head, rows)
    jobs = sum(batch.jobs for batch in batches)
    print(f"{jobs} jobs in {len(batches)} submissions; `roost q --each` lists each job.")


def _counts(states: Mapping[Any, int]) -> str:
    """`9990 idle, 10 running`."""
    return ", ".join(f"{states[state]} {state}" for state in sorted(states))


def _when(moment: int) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(moment))


def _row(job: Job) -> tuple[str, ...]:
    ending = "" if job.exit_code is None else f" {job.exit_code}"
    ending = ending if job.signal is None else f" signal {job.signal}"
    ran = ago(job.run_time) if job.run_time else "-"
    return (
        job.id,
        job.owner,
        job.state + ending,
        ran,
        _when(job.submitted),
        job.host or "-",
        job.command,
    )


@click.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.option("--user", metavar="U", help="As this user; each job's owner by default.")
@pooled
def rm(pool: Pool, ids: tuple[str, ...], user: str | None) -> None:
    """Remove jobs from the queue: ID is a cluster such as 7, or one job such as 7.0."""
    removed = pool.queue.remove(ids, user=user)
    print(f"Removed {', '.join(removed)}.")


@click.command()
@click.argument("id", metavar="ID")
@json_option
@pooled
def why(pool: Pool, id: str, as_json: bool) -> None:
    """Say in plain words why job ID is in its state; of a cluster, all its jobs."""
    explanation = pool.queue.why(id)
    if as_json:
        print_json(explanation)
        return
    for each in (explanation, *explanation.rest):
        print(f"{_those(each.jobs)} {each.state}.")
        for reason in each.reasons:
            print(f"- {reason}")


def _those(ids: Sequence[str]) -> str:
    """`Job 7.0 is`, `Jobs 7.0, 7.1 are`, `Jobs 7.0, 7.1, 7.2 and 40 more are`."""
    if len(ids) == 1:
        return f"Job {ids[0]} is"
    more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
    return f"Jobs {', '.join(ids[:3])}{more} are"
