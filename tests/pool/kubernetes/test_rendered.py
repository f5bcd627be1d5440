"""What `roost render kubernetes` writes, started by its own first lines on a real cluster."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from node_bench import eventually
from roost_bench import at_home, fresh, well, write

from roost._run import run

pytestmark = pytest.mark.kubernetes

SCRIPT = Path(__file__).parents[3] / "scripts" / "kubernetes"


def test_the_first_lines_of_the_file_start_the_pool(image: str, tmp_path: Path) -> None:
    config = os.environ.get("ROOST_TEST_KUBERNETES")
    if not config:
        pytest.skip("only `./test kubernetes` has a cluster")
    run([str(SCRIPT), "load", image]).check()
    name = fresh("kube")
    file = write(
        tmp_path / "pool.yaml",
        f"name: {name}\nexecute: [{{cpus: 0.5, memory: 256MiB}}]\nconfig: |\n  MAIL = nobody\n"
        f"kubernetes: {{storage: 1GiB, namespace: {name}}}\n",
    )
    out = tmp_path / "out"
    with at_home(tmp_path), pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", config)
        well("render", "kubernetes", file, "-o", out)
        assert not (tmp_path / "roost").exists()
        # What is rendered is for the Kubernetes of today; this one serves the version before.
        text = (out / "pool.yaml").read_text().replace(": policy/v1\n", ": policy/v1beta1\n")
        (out / "pool.yaml").write_text(text)
        lines = [line[2:] for line in text.splitlines() if line.startswith("# kubectl ")]
        try:
            for line in lines:
                run(["bash", "-euo", "pipefail", "-c", f"cd {out}; {line}"]).check()
            submit = ["kubectl", "-n", name, "exec", f"{name}-submit-0", "-c", "node", "--"]

            def ready() -> bool:
                pods = run(["kubectl", "-n", name, "get", "pods", "-o", "json"]).check().text
                said = [
                    each["ready"]
                    for pod in json.loads(pods)["items"]
                    for each in pod["status"].get("containerStatuses") or [{"ready": False}]
                ]
                return len(said) == 3 and all(said)

            eventually(ready, 300)
            assert run([*submit, "condor_config_val", "MAIL"]).text.strip() == "nobody"
            job = "executable=/bin/true\ntransfer_executable=False\nlog=/home/user/log\nqueue\n"
            as_user = ["setpriv", "--reuid", "user", "--regid", "user", "--init-groups",
                       "--reset-env", "--"]  # fmt: skip
            take = ["kubectl", "-n", name, "exec", "-i", *submit[4:]]
            run([*take, *as_user, "sh", "-c", "cd; condor_submit -"], stdin=job.encode()).check()
            waited = run([*submit, "condor_wait", "-wait", "180", "/home/user/log"])
            assert waited.status == 0, waited.text + waited.stderr
        finally:
            # First the pods: a namespace waits for as long as they might take, which is an hour.
            run(["kubectl", "-n", name, "delete", "statefulset", "--all"]).check()
            gone = ["wait", "--for=delete", "pod", "--all", "--timeout=180s"]
            run(["kubectl", "-n", name, *gone])
            run(["kubectl", "delete", "namespace", name, "--timeout=180s"]).check()
