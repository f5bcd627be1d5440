"""What an image, or this installation of roost, is made of: as CycloneDX, which scanners read."""

from __future__ import annotations

import importlib.metadata
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from roost import _run
from roost.errors import ImageBuildFailed
from roost.image.build import BuiltImage

#: What roost puts into an image beside Debian's packages.
_OWN: Final = "roost"
#: Prints the name of the system, then a line for each package that is installed.
_ASK: Final = r"""
. /etc/os-release
echo "$ID $VERSION_CODENAME"
dpkg-query -W -f '${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n'
"""  # noqa: E501 - one format


@dataclass(frozen=True)
class Package:
    """A package of the system in an image."""

    name: str
    version: str
    architecture: str
    source: str
    """The source package, by which distributions speak of vulnerabilities."""
    source_version: str


@dataclass(frozen=True)
class Contents:
    """What was found in an image."""

    system: str
    """`debian`."""
    suite: str
    """`trixie`."""
    packages: tuple[Package, ...]


def contents(engine: str, image: str) -> Contents:
    """Ask the package manager in an image. Raises ImageBuildFailed where there is none."""
    argv = [engine, "run", "--rm", "--network", "none", "--entrypoint", "sh", image, "-c", _ASK]
    done = _run.run(argv, timeout=120)
    found = parse(done.text) if done.status == 0 else None
    if found is None or not found.packages:
        raise ImageBuildFailed(
            f"what is in {image} cannot be read: {done.stderr.strip() or 'it lists no packages'}",
            advice="only images that roost built are known to say",
        )
    return found


def parse(text: str) -> Contents | None:
    """What `_ASK` printed; None if it is something else."""
    head, *lines = text.splitlines() or [""]
    words = head.split()
    rows = [line.split("\t") for line in lines]
    if not 1 <= len(words) <= 2 or any(len(row) != 6 for row in rows):
        return None
    there = tuple(Package(*row[1:]) for row in rows if row[0] == "installed")
    return Contents(words[0], words[1] if len(words) > 1 else "", there)


def of_image(image: BuiltImage, found: Contents) -> str:
    """The document of an image: the same for the same image, whenever it is made."""
    subject = Component(
        name=image.tag,
        version=image.id,
        type=ComponentType.CONTAINER,
        bom_ref=image.id,
        properties=[
            Property(name="roost.release", value=image.release),
            Property(name="htcondor.version", value=image.htcondor_version),
            Property(name="roost.version", value=image.roost_version),
        ],
    )
    parts = [_debian(package, found) for package in found.packages]
    parts.append(_python(_OWN, image.roost_version))
    return _written(subject, parts, image.id, _when(image.created))


def of_host() -> str:
    """The document of what runs here: roost, and the Python packages that it needs."""
    needed = dict(_needed(_OWN, {}))
    subject = _python(_OWN, needed.pop(_OWN), ComponentType.APPLICATION)
    parts = [_python(name, version) for name, version in needed.items()]
    return _written(subject, parts, repr(sorted(needed.items())), None)


def _needed(name: str, seen: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A distribution that is installed and all that it requires, without what is optional."""
    if _normal(name) in seen:
        return
    try:
        there = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # for another machine or Python than this
    seen[_normal(name)] = there.version
    yield _normal(name), there.version
    for line in there.requires or ():
        requirement, _, marker = line.partition(";")
        if "extra" not in marker and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
            yield from _needed(match[0], seen)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _debian(package: Package, found: Contents) -> Component:
    qualifiers: Mapping[str, str] = {
        "arch": package.architecture, "distro": found.suite,
    }  # fmt: skip
    url = PackageURL("deb", found.system, package.name, package.version, dict(qualifiers))
    return Component(
        name=package.name, version=package.version, purl=url, bom_ref=str(url),
        properties=[Property(name="source", value=f"{package.source} {package.source_version}")],
    )  # fmt: skip


def _python(name: str, version: str, kind: ComponentType = ComponentType.LIBRARY) -> Component:
    url = PackageURL("pypi", None, name, version)
    return Component(name=name, version=version, purl=url, bom_ref=str(url), type=kind)


def _written(subject: Component, parts: list[Component], of: str, when: datetime | None) -> str:
    bom = Bom(components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, of))
    bom.metadata.component = subject
    if when is not None:
        bom.metadata.timestamp = when
    bom.register_dependency(subject, parts)
    return JsonV1Dot6(bom).output_as_string(indent=2) + "\n"


def _when(created: str) -> datetime | None:
    """An engine's time: with more digits than Python's, or in a form of its own."""
    try:
        return datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", created))
    except ValueError:
        return None
