"""What the kernel kills because the container's memory is used up."""

from __future__ import annotations

TYPE_CHECKING = False  # supervisord's process imports this: typing would cost every node a MiB
if TYPE_CHECKING:
    from typing import Final

#: Counters of cgroup v2 and of v1, as a container sees its own.
FILES: Final = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def count(files: tuple[str, ...] = FILES) -> int:
    """How many processes it has killed here since the container started."""
    for file in files:
        try:
            with open(file) as lines:
                found = [line.split()[1] for line in lines if line.startswith("oom_kill ")]
        except OSError:
            continue
        if found:
            return int(found[0])
    return 0


class Watch:
    """Notices that it killed something."""

    def __init__(self, files: tuple[str, ...] = FILES) -> None:
        self._files = files
        self._seen = count(files)

    def look(self) -> str:
        """A sentence if that happened since the last look; else nothing."""
        now = count(self._files)
        new, self._seen = now - self._seen, now
        if new <= 0:
            return ""
        processes = "a process" if new == 1 else f"{new} processes"
        return f"the memory of this container was used up, so the kernel killed {processes} in it"
