"""Marathon: a plan as app definitions (definitions.py), and those kept running (engine.py).

What talks to a Marathon is imported by itself: rendering needs no HTTP.
"""

from roost.engines.marathon.definitions import HEALTH_PORT, MarathonRenderer, apps

__all__ = ["HEALTH_PORT", "MarathonRenderer", "apps"]
