"""Tasks as Docker containers, as the Docker containerizer of a Mesos agent would run them."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Sequence
from typing import Any

from marathon_emulator.definitions import App, network

#: On everything that an emulator makes; its value is the emulator's own.
LABEL = "marathon.emulator"
#: Where a task's sandbox is seen inside its container.
SANDBOX = "/mnt/mesos/sandbox"


def docker(*argv: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`docker …`, whatever its end."""
    return subprocess.run(
        ["docker", *argv], capture_output=True, text=True, timeout=timeout, check=False
    )


def run_argv(
    app: App, task: str, container: str, host: str, owner: str, domain: str, volumes: dict[str, str]
) -> list[str]:
    """`docker run …` for a task; `volumes` are the Docker volumes of its persistent ones."""
    inside = app["container"]["docker"]
    net = network(app)
    name = ".".join(reversed(app["id"].strip("/").split("/")))
    environment = {
        **app["env"],
        "MARATHON_APP_ID": app["id"], "MESOS_TASK_ID": task, "HOST": host,
        "MARATHON_APP_DOCKER_IMAGE": inside["image"], "MESOS_CONTAINER_NAME": container,
        "MESOS_SANDBOX": SANDBOX,
    }  # fmt: skip
    own_net = next((p["value"] for p in inside.get("parameters", ()) if p["key"] == "net"), net)
    return [
        "run", "--detach", "--name", container, "--label", f"{LABEL}={owner}",
        "--cpu-shares", str(max(2, int(app["cpus"] * 1024))),
        *(["--memory", f"{int(app['mem'])}m"] if app["mem"] else []),
        *(word for key, value in environment.items() for word in ("--env", f"{key}={value}")),
        *mounts(app["container"].get("volumes") or (), volumes),
        *(["--net", net] if net else []),
        *([] if own_net in ("bridge", "host", "none") else
          ["--network-alias", f"{name}.{domain}"]),
        *(f"--{each['key']}={each['value']}" for each in inside.get("parameters", ())),
        inside["image"], *app.get("args", ()),
    ]  # fmt: skip


def mounts(asked: Sequence[dict[str, Any]], volumes: dict[str, str]) -> list[str]:
    """A persistent volume is in the sandbox; a relative `hostPath` is that place in the sandbox.

    Mesos mounts a folder of the agent's, so Docker copies nothing of the image into it.
    """
    found: list[str] = []
    for volume in asked:
        if "persistent" in volume:
            source, target = (
                volumes[volume["containerPath"]],
                f"{SANDBOX}/{volume['containerPath']}",
            )
        else:
            source = volumes.get(volume["hostPath"], volume["hostPath"])
            target = volume["containerPath"]
        nocopy = ",nocopy" if source in volumes.values() else ""
        found += ["--volume", f"{source}:{target}:{volume['mode'].lower()}{nocopy}"]
    return found


def address(container: str) -> str:
    """Its address; empty while it has none."""
    said = docker(
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
        container,
    )
    return (said.stdout.split() or [""])[0]


def sick(container: str, check: dict[str, Any]) -> str:
    """Why a health check fails now; empty if it does not."""
    try:
        if check["protocol"] == "COMMAND":
            done = docker(
                "exec", container, "/bin/sh", "-c", check["command"]["value"],
                timeout=check["timeoutSeconds"],
            )  # fmt: skip
            return "" if done.returncode == 0 else f"Command exited with status {done.returncode}"
        # HTTP is asked for by Marathon, MESOS_HTTP by the agent inside the task's network.
        asked = http.client.HTTPConnection(
            address(container), check["port"], timeout=check["timeoutSeconds"]
        )
        asked.request("GET", check.get("path", "/"))
        status = asked.getresponse().status
        return "" if 200 <= status < 400 else f"HTTP {status}"
    except (OSError, subprocess.TimeoutExpired, http.client.HTTPException) as error:
        return type(error).__name__


def remove_all(owner: str) -> None:
    """Whatever an emulator made."""
    mine = f"label={LABEL}={owner}"
    if there := docker("ps", "--all", "--quiet", "--filter", mine).stdout.split():
        docker("rm", "--force", "--volumes", *there)
    if left := docker("volume", "ls", "--quiet", "--filter", mine).stdout.split():
        docker("volume", "rm", "--force", *left)


def inspected(container: str, template: str) -> Any:
    """One value of `docker inspect`."""
    return json.loads(docker("inspect", "--format", template, container).stdout.strip() or "null")
