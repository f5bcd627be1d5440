"""One of Dask's workers, in a job: it takes tasks until its scheduler ends or is away for long."""

import asyncio
import json
import os
import signal
from pathlib import Path

from distributed import Worker
from distributed.security import Security


async def serve() -> None:
    """Work; told to end, hand over what it has."""
    given = json.loads(Path("worker.json").read_text())
    worker = await Worker(
        given["scheduler"],
        protocol="tls",
        security=Security(require_encryption=True, **given["security"]),
        nthreads=given["threads"],
        memory_limit=given["memory"],
        local_directory=os.environ["TMPDIR"],
        death_timeout=given["patience"],
        dashboard=False,
    )
    loop = asyncio.get_running_loop()
    ending = set[asyncio.Task[object]]()
    loop.add_signal_handler(
        signal.SIGTERM,
        lambda: ending.add(loop.create_task(worker.close_gracefully(restart=False))),
    )
    await worker.finished()


asyncio.run(serve())
