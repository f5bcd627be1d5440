"""The access point's first word to the negotiator, said before there is a job to speak of.

The first time that a schedd tells a negotiator of new jobs, the two shake hands, and each waits for
the other alone meanwhile. If a negotiation cycle reaches the schedd in that moment, both wait until
they give up, 20 s (seen in about one first submission of a hundred). While the queue is empty the
negotiator has no reason to call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from roost_node.health import Ask, ask

#: Seconds between two tries, and for how long it is tried.
_PAUSE: Final = 0.2
_PATIENCE: Final = 300.0


def greet(ask: Ask = ask, sleep: Callable[[float], None] = time.sleep) -> int:
    """Return 0 once the schedd was told to call its negotiator, 1 if neither came up in time."""
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until:
        known = ask(["condor_status", "-negotiator", "-af", "Name"])
        if known.out.strip() and ask(["condor_reschedule"]).status == 0:
            return 0
        sleep(_PAUSE)
    return 1
