"""What a pool offers and a job asks for: what roost writes, a node reads."""

from __future__ import annotations

import pytest

from roost import specfile
from roost.data import TYPES, Scheme, document
from roost_node.data import entries
from roost_node.data.entries import Offer, Wish
from roost_node.data.shape import Entry, Refused
from roost_node.errors import BadInput

POOL = """
data:
  johns-space: {type: onedata, host: onezone.example.org}
  reference: {type: rclone, backend: s3, path: bucket, options: {provider: Minio}, read_only: true}
  software: {type: bind, path: /srv/software, wait: 5}
data_urls: [https, davs, onedata, s3]
"""


def offer() -> Offer:
    spec = specfile.parse(POOL, "pool.yaml")
    return entries.read(document(spec.data, spec.data_urls), "data.json")


def test_a_node_reads_what_roost_writes() -> None:
    found = offer()
    assert found.entries["johns-space"] == Entry(
        "johns-space",
        "onedata",
        {"host": "onezone.example.org", "path": "", "timeout": 30},
        token=True,
    )
    assert found.entries["reference"] == Entry(
        "reference",
        "rclone",
        {"backend": "s3", "path": "bucket", "options": {"provider": "Minio"}},
        read_only=True,
    )
    assert found.entries["software"] == Entry("software", "bind", {"path": "/srv/software"}, wait=5)
    assert found.urls == ("davs", "https", "onedata", "s3")


def test_both_programs_know_the_same_types_and_schemes() -> None:
    assert set(entries.TYPES) == set(TYPES)
    assert set(entries.SCHEMES) == set(Scheme.__args__)  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"entries": {"A b": {"type": "bind"}}}',
                                  '{"entries": {"a": {"type": "nfs"}}}',
                                  '{"entries": {}, "urls": ["ftp"]}'])  # fmt: skip
def test_an_odd_file_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--data data\.json\b"):
        entries.read(text, "data.json")


def test_what_a_job_asks_for() -> None:
    found = offer()
    assert entries.wishes(" johns-space:data:rw, reference ,software:a/b:ro", found) == (
        Wish(found.entries["johns-space"], "data", write=True),
        Wish(found.entries["reference"], "reference"),
        Wish(found.entries["software"], "a/b"),
    )
    assert entries.wishes("", found) == ()


def test_urls_are_entries_of_their_type() -> None:
    (web, space, dav, bucket) = entries.wishes(
        "https://example.org:8443/a%20b:web, onedata://zone.example.org/my space/x:od:rw,"
        "davs://example.org/d:dav, s3://bucket/p:s".replace("my space", "my%20space"),
        offer(),
    )
    assert web.entry.options == {
        "backend": "http", "path": "", "options": {"url": "https://example.org:8443/a%20b"}
    }  # fmt: skip
    assert space.entry.options == {"host": "zone.example.org", "space": "my space", "path": "x"}
    assert (space.directory, space.write, space.entry.token) == ("od", True, True)
    assert dav.entry.options["backend"] == "webdav"
    assert bucket.entry.options["path"] == "bucket/p"
    assert entries.token_name(space.entry) == "onedata"


@pytest.mark.parametrize(("text", "reason"), [
    ("refrence", "'refrence', which this pool has not; it has: johns-space, reference, software"),
    ("reference:ref:rw", "asks to write to reference, which this pool mounts read-only"),
    ("reference:ref:x", "after the directory stands rw, ro or nothing"),
    ("reference:/etc", "give one in the sandbox"),
    ("reference:../x", "give one in the sandbox"),
    ("reference:a, software:a/b", "puts software where another mount is"),
    ("reference:a, software:a-b, johns-space:a/b", "puts johns-space where another mount is"),
    ("reference:a, reference:a", "puts reference where another mount is"),
    ("http://example.org/x:web", "permits no http: URLs"),
    ("https://example.org/x", "a URL needs a directory, as in https://example.org/x:data"),
    ("https://user:pw@example.org/x:web", "has a URL with a user in it"),
    (",".join(f"reference:d{n}" for n in range(17)), "names 17 mounts"),
])  # fmt: skip
def test_what_cannot_be_mounted_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        entries.wishes(text, offer())
    assert reason in str(refused.value)
