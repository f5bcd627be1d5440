"""What an image and an installation are made of: documents that fit the published schema."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from roost.image.build import BuiltImage
from roost.image.sbom import Contents, of_host, of_image, parse

IMAGE = BuiltImage("roost/htcondor:trixie", "sha256:" + "ab" * 32, 1, "23.9.6", "0.1", "trixie",
                   "2026-11-26T15:05:00.123456789Z")  # fmt: skip
SAID = """\
debian trixie
installed\tcondor\t23.9.6+dfsg-2.1\tamd64\tcondor\t23.9.6+dfsg-2.1
config-files\tgone\t1\tall\tgone\t1
installed\tlibssl3t64\t3.5.1-1\tamd64\topenssl\t3.5.1-1
"""


def valid(text: str) -> dict[str, Any]:
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_schema_is_not_content_with_anything() -> None:
    bom = json.loads(of_host())
    bom["components"][0]["type"] = "rumour"
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bom)) is not None


def test_an_image_is_its_installed_packages_and_roost() -> None:
    there = parse(SAID)
    assert there is not None
    text = of_image(IMAGE, there)
    bom = valid(text)
    assert {each["purl"] for each in bom["components"]} == {
        "pkg:deb/debian/condor@23.9.6%2Bdfsg-2.1?arch=amd64&distro=trixie",
        "pkg:deb/debian/libssl3t64@3.5.1-1?arch=amd64&distro=trixie",
        "pkg:pypi/roost@0.1",
    }
    subject = bom["metadata"]["component"]
    assert (subject["name"], subject["version"]) == (IMAGE.tag, IMAGE.id)
    assert {"name": "htcondor.version", "value": "23.9.6"} in subject["properties"]
    (source,) = [each["properties"] for each in bom["components"] if each["name"] == "libssl3t64"]
    assert source == [{"name": "source", "value": "openssl 3.5.1-1"}]
    assert of_image(IMAGE, there) == text


def test_what_is_no_list_of_packages() -> None:
    assert parse("") is None
    assert parse("sh: dpkg-query: not found") is None
    assert parse("debian trixie\ncondor 1\n") is None
    assert parse("debian trixie\n") == Contents("debian", "trixie", ())


def test_the_host_has_what_roost_requires_and_nothing_of_its_tests() -> None:
    bom = valid(of_host())
    names = {each["name"] for each in bom["components"]}
    assert {"click", "pydantic", "cryptography", "cyclonedx-python-lib", "cffi"} <= names
    assert not {"pytest", "mypy", "ruff", "roost"} & names
    assert bom["metadata"]["component"]["version"] == importlib.metadata.version("roost")
