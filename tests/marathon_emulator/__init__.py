"""An emulator of Marathon, for tests. It is no Marathon.

No Marathon, no Mesos and no image of one can be had where roost is tested, so this stands in for
them: it speaks as much of the REST API (v2) as roost, and somebody with curl, have to do with, in
three generations of its words, and runs each task as a real container on this machine's Docker,
with the flags that the Mesos agent's Docker containerizer would give it. What it accepts is checked
against the JSON schemas that Marathon published, and against those rules of its validation that the
schemas do not say (definitions.py). What it does not do: offers and resources are not counted;
groups, pods, readiness checks and upgrades in steps do not exist; all of its agents are the one
engine; Mesos-DNS is an alias on the Docker network.

`python -m marathon_emulator [--version 1.5] [--port 8080]`, with `tests` on PYTHONPATH, serves
until Ctrl-C and then removes its containers and volumes.
"""
