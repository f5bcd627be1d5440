"""What a submit file needs beside it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.errors import BadInput, JobError
from roost.queue.jobs import quoted
from roost.queue.submit import (
    Mirror,
    cargo,
    missing_for_parsing,
    needs,
    pack,
    parsed_with,
    read_ads,
    unpack,
)

#: As HTCondor 23.9.6 writes it: the cluster's ad with the first proc, then what differs.
DUMP = """
ClusterId=1
In="stdin.txt"
Cmd="/home/john/roost/x/here/run.sh"
Err="0.err"
Iwd="/home/john/roost/x/here"
Out="out/0.out"
TransferErr=true
Requirements=(TARGET.Arch == "X86_64") && (TARGET.OpSys == "LINUX")
UserLog="/home/john/roost/x/here/job.log"
TransferInput="data/a.txt,http://host/z,lib/, ../up"
TransferOutputRemaps="r = res/r.0"
ProcId=0

ProcId=1
Out="out/1.out"
TransferIn=false
TransferInput="data/b \\"b\\".txt"
"""


def test_the_ads_of_later_procs_inherit_from_the_first() -> None:
    first, second = read_ads(DUMP)
    assert first["Out"] == "out/0.out"
    assert second["Out"] == "out/1.out"
    assert second["Cmd"] == first["Cmd"]
    assert second["TransferInput"] == 'data/b "b".txt'
    assert "Requirements" not in first, "an expression names no file"


def test_what_the_jobs_read_and_write() -> None:
    wanted = needs(read_ads(DUMP))
    root = "/home/john/roost/x"
    assert [named.path for named in wanted.inputs] == [
        f"{root}/here/run.sh",
        f"{root}/here/stdin.txt",
        f"{root}/here/data/a.txt",
        f"{root}/here/lib",
        f"{root}/up",
        f'{root}/here/data/b "b".txt',
    ]
    assert f"{root}/here/res/r.0" in [named.path for named in wanted.outputs]
    assert [named.path for named in wanted.directories] == [f"{root}/here"]


def test_an_executable_that_is_not_transferred_is_no_input() -> None:
    assert not needs([{"Cmd": "/bin/sleep", "TransferExecutable": False, "Iwd": "/x"}]).inputs


def test_what_only_the_match_decides_is_no_input() -> None:
    assert not needs([{"Cmd": "/x/run.$$(OpSys)", "Iwd": "/x"}]).inputs


@pytest.mark.parametrize(
    ("text", "files", "patterns"),
    [
        ("queue a from list.txt", ("list.txt",), ()),
        ("queue a, b from [1:3] list.txt", ("list.txt",), ()),
        ("QUEUE a FROM list.txt", ("list.txt",), ()),
        ("queue a from (\n x\n y\n)", (), ()),
        ("queue a from seq 3 |", (), ()),
        ("queue a from $(list)", (), ()),
        ("include : common.sub", ("common.sub",), ()),
        ("include ifexist : common.sub", ("common.sub",), ()),
        ("include : ./make |", (), ()),
        ("queue a matching files *.dat b?", (), ("*.dat", "b?")),
        ("queue a matching *.dat, *.txt", (), ("*.dat", "*.txt")),
        ("queue a matching dirs (\n run*\n)", (), ("run*",)),
        ("queue 3", (), ()),
        ("# queue a from list.txt", (), ()),
        ("queue a \\\n from list.txt", ("list.txt",), ()),
    ],
)
def test_what_the_language_reads(
    text: str, files: tuple[str, ...], patterns: tuple[str, ...]
) -> None:
    assert parsed_with(f"executable = x\n{text}\n") == (files, patterns)


def test_a_file_that_only_macros_name_is_found_in_the_complaint() -> None:
    said = "\nERROR: on Line 3 of submit file: can't open file l.txt: No such file or directory\n"
    assert missing_for_parsing(said) == "l.txt"
    assert missing_for_parsing("ERROR: invalid Queue statement") is None


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    submit_file = tmp_path / "a.sub"
    submit_file.write_text(
        "executable = run.sh\ntransfer_input_files = data\ninitialdir = d\noutput = out/o\nqueue\n"
    )
    return Mirror(submit_file, "/home/john/roost/x")


def test_places_on_both_sides(mirror: Mirror, tmp_path: Path) -> None:
    assert mirror.directory == f"/home/john/roost/x{tmp_path}"
    assert mirror.here(f"{mirror.directory}/run.sh") == tmp_path / "run.sh"
    assert mirror.here("/bin/sleep") is None
    assert mirror.here("/home/john/roost/xy") is None


@pytest.mark.parametrize(
    ("stderr", "sentence"),
    [
        (
            "\nERROR: on Line 2 of submit file: invalid Queue statement\n\n"
            "ERROR: Failed to parse command file (line 2).\n",
            "a.sub:2: invalid Queue statement",
        ),
        (
            "\nERROR: on Line 2 of submit file: \n\n"
            "ERROR: Failed to parse command file (line 2).\n",
            "a.sub:2: HTCondor does not understand this line",
        ),
        (
            "ERROR: I don't know about the 'foo' universe.",
            "a.sub: I don't know about the 'foo' uni",
        ),
        (
            '\nERROR: on Line 2 of submit file: \nSubmit:-1:Error "inc.sub", Line 0, Include '
            "Depth 1: can't open file inc.sub: No such file or directory\n\n"
            "ERROR: Failed to parse command file (line 2).\n",
            "a.sub:2: can't open file inc.sub: No such file or directory",
        ),
        (
            "WARNING: the line 'x = 1' was unused\n\nERROR: No 'executable' parameter was provided",
            "a.sub: No 'executable' parameter was provided",
        ),
    ],
)
def test_condor_submit_complains_about_the_users_own_file(
    mirror: Mirror, stderr: str, sentence: str
) -> None:
    assert mirror.complaint(stderr).startswith(sentence)
    assert "\n" not in mirror.complaint(stderr)


def test_paths_in_complaints_are_the_users(mirror: Mirror, tmp_path: Path) -> None:
    said = f"ERROR: Can't access executable file {mirror.directory}/run.sh: No such file"
    assert f"file {tmp_path}/run.sh:" in mirror.complaint(said)


def test_a_missing_input_is_named_with_its_line(mirror: Mirror, tmp_path: Path) -> None:
    ads = needs([{"Iwd": mirror.directory, "Cmd": f"{mirror.directory}/run.sh"}])
    with pytest.raises(BadInput, match=r"^a\.sub:1: executable: .*/run\.sh does not exist"):
        cargo(ads, mirror)
    (tmp_path / "run.sh").touch()
    assert cargo(ads, mirror).paths == (tmp_path / "run.sh",)


def test_a_missing_initialdir_and_a_missing_place_for_output(mirror: Mirror) -> None:
    with pytest.raises(BadInput, match=r"^a\.sub:3: initialdir: there is no directory .*/d"):
        cargo(needs([{"Iwd": f"{mirror.directory}/d"}]), mirror)
    with pytest.raises(BadInput, match=r"^a\.sub:4: output: there is no directory .*/out"):
        cargo(needs([{"Iwd": mirror.directory, "Out": "out/o"}]), mirror)


def test_absolute_names_are_the_access_points(mirror: Mirror) -> None:
    load = cargo(needs([{"Iwd": mirror.directory, "Cmd": "/bin/sleep", "Out": "/tmp/o"}]), mirror)
    assert [named.path for named in load.elsewhere] == ["/bin/sleep"]
    assert load.stays == ("/tmp/o",)
    assert load.paths == ()


def test_an_output_above_the_submit_file_stays_and_says_so(mirror: Mirror) -> None:
    assert cargo(needs([{"Iwd": mirror.directory, "Out": "../o"}]), mirror).stays == ("../o",)


def _members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return {member.name: member for member in members}


def test_a_packed_directory_keeps_modes_and_times(tmp_path: Path) -> None:
    (tmp_path / "lib/deep").mkdir(parents=True)
    script = tmp_path / "lib/deep/run.sh"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o750)
    (tmp_path / "lib/link").symlink_to("deep/run.sh")
    (tmp_path / "lib/loop").symlink_to(tmp_path / "lib")
    members = _members(pack([tmp_path / "lib", script]))
    name = str(tmp_path).lstrip("/")
    assert sorted(members) == [f"{name}/lib", f"{name}/lib/deep", f"{name}/lib/deep/run.sh",
                               f"{name}/lib/link"]  # fmt: skip
    assert members[f"{name}/lib/deep/run.sh"].mode == 0o750
    assert members[f"{name}/lib/deep/run.sh"].mtime == pytest.approx(script.stat().st_mtime)
    assert members[f"{name}/lib/link"].isfile(), "a link to a file becomes that file"


def test_a_name_alone_becomes_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "big.dat").write_text("content")
    (member,) = _members(pack([], names_only=[tmp_path / "big.dat"])).values()
    assert (member.size, member.isfile()) == (0, True)


def _archive(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def _member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
    return member


def test_outputs_come_back_with_modes_and_times(tmp_path: Path) -> None:
    member = _member("./out/o")
    member.mode, member.mtime = 0o754, 1_700_000_000
    assert unpack(_archive(member), tmp_path) == (tmp_path / "out/o",)
    there = (tmp_path / "out/o").stat()
    assert (there.st_mode & 0o777, there.st_mtime) == (0o754, 1_700_000_000)


@pytest.mark.parametrize(
    "member",
    [
        _member("../o"),
        _member("a/../../o"),
        _member("link", tarfile.SYMTYPE, "/etc"),
        _member("link", tarfile.LNKTYPE, "../o"),
        _member("pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda member: f"{member.name}-{member.type.decode()}",
)
def test_nothing_leaves_the_directory(tmp_path: Path, member: tarfile.TarInfo) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    with pytest.raises(JobError):
        unpack(_archive(member), inside)
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


def test_an_absolute_member_lands_below_the_directory(tmp_path: Path) -> None:
    unpack(_archive(_member(f"{tmp_path}/o")), tmp_path / "in")
    assert not (tmp_path / "o").exists()


def test_a_link_on_the_way_does_not_lead_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "in/out").symlink_to(tmp_path / "outside")
    with pytest.raises(JobError, match="refused"):
        unpack(_archive(_member("out/o")), tmp_path / "in")
    assert not list((tmp_path / "outside").iterdir())


def test_half_an_archive_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="did not arrive whole"):
        unpack(b"no archive at all", tmp_path)


@given(st.text(st.characters(exclude_categories=["C"]), max_size=30))
def test_a_quoted_string_reads_back(text: str) -> None:
    written = quoted(text).replace("$(DOLLAR)", "$")
    assert read_ads(f"ClusterId=1\nX={written}")[0]["X"] == text
    assert "$" not in quoted(text).replace("$(DOLLAR)", "")
