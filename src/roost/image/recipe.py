"""What an image is made of: values only; roost.image.build makes it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from roost.data import Extra
from roost.spec import Release, image_name

DOCKERFILE: Final = "src/roost/image/Dockerfile"
#: In a context: what an image with `onedata` needs, and roost fetches.
WHEELS: Final = "src/roost/image/onedata"

#: The Debian under each release; `lts` and `feature` come from HTCondor's own repository, for it.
SUITE: Final[Mapping[Release, str]] = {
    "trixie": "trixie",
    "forky": "forky",
    "lts": "trixie",
    "feature": "trixie",
}

#: Found on every image that roost made, and with it `htcondor.version` and `roost.release`.
LABEL_ROOST_VERSION: Final = "roost.version"
LABEL_HTCONDOR_VERSION: Final = "htcondor.version"
LABEL_RELEASE: Final = "roost.release"
#: On what an unfinished build leaves behind.
LABEL_STAGE: Final = "roost.stage"

#: What mmdebstrap leaves out of a base image: documentation and translations, as Debian's own does.
_NOT_IN_BASE: Final = ("man", "info", "locale", "doc", "lintian")

#: How a step begins in the output of Docker's first builder, of Podman and of BuildKit.
_STEP: Final = re.compile(r"(?i:step) \d+/\d+|#\d+ \[")
_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class ImageSpec:
    """An image to build."""

    release: Release = "trixie"
    tag: str = ""
    """Its name; `roost/htcondor:<release>-<extras>`, or in $ROOST_IMAGES, if empty."""
    extras: tuple[Extra, ...] = ()
    """What it has beside HTCondor, sorted: see extras.sh."""

    @property
    def name(self) -> str:
        return self.tag or image_name(self.release, self.extras)

    @property
    def suite(self) -> str:
        """The Debian suite that it stands on."""
        return SUITE[self.release]

    @property
    def base(self) -> str:
        """The image that it stands on."""
        return f"debian:{self.suite}-slim"

    def build_args(self, roost_version: str, htcondor_version: str = "unknown") -> dict[str, str]:
        """The Dockerfile's ARGs."""
        return {
            "RELEASE": self.release,
            "SUITE": self.suite,
            "WITH": " ".join(self.extras),
            "ROOST_VERSION": roost_version,
            "HTCONDOR_VERSION": htcondor_version,
        }


def build_command(release: Release, extras: tuple[Extra, ...]) -> str:
    """What a user types to build it."""
    words = (f"--with {extra}" for extra in extras)
    return " ".join(("roost image build --release", release, *words))


def build_argv(engine: str, args: Mapping[str, str], context: str, id_file: str) -> list[str]:
    """The command line that builds the context in the directory `context`, untagged."""
    options = [word for name, value in args.items() for word in ("--build-arg", f"{name}={value}")]
    # In OCI's own format an image has no health check.
    options += ["--format", "docker"] if engine == "podman" else []
    return [engine, "build", "--force-rm", "--file", f"{context}/{DOCKERFILE}",
            "--iidfile", id_file, *options, context]  # fmt: skip


def context_files(
    node: Mapping[str, bytes], image: Mapping[str, bytes]
) -> dict[str, tuple[bytes, int]]:
    """The build context: path → content and mode, from the files of roost_node and roost/image.

    Laid out as in a checkout, so that the Dockerfile serves `docker build .` too.
    """
    files = {f"src/roost_node/{name}": data for name, data in node.items()}
    files |= {f"src/roost/image/{name}": data for name, data in image.items()}
    return {
        name: (data, 0o755 if data.startswith(b"#!") else 0o644)
        for name, data in sorted(files.items())
    }


def bootstrap_argv(suite: str, target: str) -> list[str]:
    """mmdebstrap's command line for a minimal Debian in the tar file `target`."""
    excludes = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _NOT_IN_BASE]
    includes = ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    # Not released yet: mirrors that stand still serve it with a Release file past its date.
    unreleased = ["--aptopt=Acquire::Check-Valid-Until false"] if suite == "forky" else []
    return ["mmdebstrap", "--variant=minbase", *excludes, *includes, *unreleased, suite, target]


def failing_step(lines: Sequence[str], *, keep: int = 5) -> str:
    """The step that failed and the last lines that it wrote, out of a build's output."""
    start = max((index for index, line in enumerate(lines) if _STEP.match(line)), default=-1)
    said = [_COLOUR.sub("", line).strip() for line in lines[start + 1 :]]
    quoted = " | ".join([line for line in said if line][-keep:]) or "it said nothing"
    return f"{lines[start].strip()}: {quoted}" if start >= 0 else quoted


def begun_step(before: str, line: str) -> str:
    """The step that `before` began, unless `line` after it says that a cache had it; else empty."""
    cached = "using cache" in line.lower() or line.endswith(" CACHED")
    return before.strip() if _STEP.match(before) and not cached else ""


def parse_version(text: str) -> str:
    """`23.9.6` out of what condor_version writes; empty if it is not there."""
    match = re.search(r"\$CondorVersion: (\d+\.\d+\.\d+)", text)
    return match[1] if match else ""


def is_disk_full(text: str) -> bool:
    """Whether an engine's message says that its disk is full."""
    return "no space left on device" in text.lower() or "disk quota exceeded" in text.lower()
