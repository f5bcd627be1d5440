"""Dask's scheduler on the access point, for one program: it ends when its input does.

The first line of the input has the keys: nothing secret stands in arguments or files.
"""

import asyncio
import json
import sys

from distributed import Scheduler
from distributed.security import Security


async def serve() -> None:
    """Print the port; work until whoever asked for this has gone."""
    given = json.loads(sys.stdin.readline())
    security = Security(require_encryption=True, **given)
    async with Scheduler(protocol="tls", port=0, security=security, dashboard=False) as scheduler:
        print(scheduler.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(serve())
