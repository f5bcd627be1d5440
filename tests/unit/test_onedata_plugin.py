"""onedata:// URLs: what they mean, and files that go to a space and come from it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import onedata_bench
from onedata_bench import TOKEN
from onedata_stub import SPACE, Stub
from roost_node.data.entries import Offer
from roost_node.data.onedata import plugin
from roost_node.data.onedata.files import BLOCK
from roost_node.data.onedata.plugin import Transfer
from roost_node.data.shape import Entry, Refused

ENTRY = Entry(SPACE, "onedata", {"host": "onezone", "path": "below"}, token=True)
LAB = Entry("lab", "sshfs", token=True)


def test_what_a_url_means() -> None:
    offer = Offer({SPACE: ENTRY, "lab": LAB}, ("onedata",))
    assert plugin.place(f"onedata://{SPACE}/a/b", offer) == plugin.Place(ENTRY, "a/b")
    other = plugin.place("onedata://host.example.org/hers/a/b", offer)
    assert (other.entry.options, other.path) == (
        {"host": "host.example.org", "space": "hers"}, "a/b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("onedata://johns-space", "is not a file's URL"),
        ("onedata://lab/f", "lab is no space of Onedata, but of type sshfs"),
        ("onedata://elsewhere/space/f", "has no space 'elsewhere'; it has: johns-space"),
    ],
)
def test_what_a_url_cannot_mean(url: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        plugin.place(url, Offer({SPACE: ENTRY, "lab": LAB}))


def test_htcondors_file_of_transfers() -> None:
    text = (
        '[ LocalFileName = "/d/a \\"x\\""; Url = "onedata://s/a" ]\n'
        '[ Url = "onedata://s/b";\n  LocalFileName = "/d/b" ]\n'
    )
    assert plugin.asked(text) == [
        Transfer("onedata://s/a", '/d/a "x"'), Transfer("onedata://s/b", "/d/b"),
    ]  # fmt: skip


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    with onedata_bench.running(tmp_path) as (stub, ca):
        entry = {"type": "onedata", "host": stub.domain, "ca": ca.read_text(), "token": True}
        offer = tmp_path / "data.json"
        offer.write_text(json.dumps({"entries": {SPACE: entry}}))
        monkeypatch.setattr(plugin, "_OFFER", offer)
        credentials = tmp_path / "creds"
        credentials.mkdir()
        (credentials / "johns_space.use").write_text(json.dumps({"access_token": TOKEN}))
        monkeypatch.setenv("_CONDOR_CREDS", str(credentials))
        yield stub


def _run(tmp_path: Path, *transfers: Transfer, upload: bool = False) -> tuple[int, str]:
    asked, answered = tmp_path / "in.ads", tmp_path / "out.ads"
    asked.write_text("".join(
        f'[ LocalFileName = "{each.file}"; Url = "{each.url}" ]\n' for each in transfers
    ))  # fmt: skip
    argv = ["-infile", str(asked), "-outfile", str(answered), *(["-upload"] if upload else [])]
    return plugin.main(argv), answered.read_text()


def test_files_come_and_go(tmp_path: Path, stub: Stub) -> None:
    data = os.urandom(2 * BLOCK + 5)
    stub.space.write("in/f", data)
    there, back = tmp_path / "f", tmp_path / "empty"
    status, said = _run(tmp_path, Transfer(f"onedata://{SPACE}/in/f", str(there)))
    assert (status, there.read_bytes() == data) == (0, True), said
    assert f"TransferTotalBytes = {len(data)}" in said
    back.write_bytes(b"")
    stub.space.write("out/new/g", b"x" * (len(data) + 100))
    status, said = _run(
        tmp_path, Transfer(f"onedata://{SPACE}/out/new/g", str(there)),
        Transfer(f"onedata://{SPACE}/out/other/empty", str(back)), upload=True,
    )  # fmt: skip
    assert status == 0, said
    assert bytes(stub.space.find("out/new/g").data) == data, "what was there is replaced"
    assert stub.space.find("out/other/empty").data == b""


def test_what_fails_is_said(tmp_path: Path, stub: Stub) -> None:
    stub.space.write("d/f", b"x")
    status, said = _run(
        tmp_path, Transfer(f"onedata://{SPACE}/missing", str(tmp_path / "a")),
        Transfer(f"onedata://{SPACE}/d", str(tmp_path / "b")),
        Transfer(f"onedata://{SPACE}/d/f", str(tmp_path / "c")),
    )  # fmt: skip
    assert status == 1
    missing, directory, fine = said.splitlines()
    assert "TransferSuccess = false" in missing and "posix" in missing
    assert "this is a directory; name the files in it" in directory
    assert "TransferSuccess = true" in fine
    stub.tokens[TOKEN] = 1.0
    status, said = _run(tmp_path, Transfer(f"onedata://{SPACE}/d/f", str(tmp_path / "c")))
    assert "the token expired on 1970-01-01" in said
    assert f"`roost data login {SPACE}`" in said
    assert TOKEN not in said


def test_a_job_without_the_token_is_told(
    tmp_path: Path, stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("_CONDOR_CREDS")
    status, said = _run(tmp_path, Transfer(f"onedata://{SPACE}/f", str(tmp_path / "c")))
    assert status == 1
    assert f"the job has no token for {SPACE}" in said
