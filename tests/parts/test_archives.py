"""Archives are somebody else's: what comes out of one, and what is refused, in flat memory."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from emulator import archives
from emulator.archives import check_zip, unpack
from emulator.errors import SetupError

LIMIT = 1 << 20
MIB = 1 << 20
ZEROS = gzip.compress(bytes(MIB))  # one after the other they are a file of any size
END = bytes(2 * tarfile.BLOCKSIZE)


def member(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, **more: object
) -> bytes:
    """A header and its content, as they stand in an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    for field, value in more.items():
        setattr(info, field, value)
    padding = -len(content) % tarfile.BLOCKSIZE
    return info.tobuf(tarfile.PAX_FORMAT) + content + bytes(padding)


def with_size(header: bytes, size: int) -> bytes:
    """The header with another size, as GNU's tar writes large and negative ones."""
    changed = bytearray(header[: tarfile.BLOCKSIZE])
    changed[124:136] = (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")
    changed[148:156] = b"        "
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed) + header[tarfile.BLOCKSIZE :]


def packed(path: Path, *parts: bytes) -> Path:
    """A .tar.gz of these parts; those that are gzip already stay as they are."""
    with path.open("wb") as file:
        for part in parts:
            file.write(part if part.startswith(archives.GZIP) else gzip.compress(part, 1))
    return path


def record(key: str, value: str) -> bytes:
    """A PAX record: its own length comes first."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def pax(**values: str) -> bytes:
    return member("pax", b"".join(record(k, v) for k, v in values.items()), tarfile.XHDTYPE)


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    return member(name, b"", kind, linkname=target)


def sparse() -> bytes:
    """GNU's older form: one kilobyte of data in a file of a terabyte."""
    header = bytearray(member("1/saved_model.pb", bytes(1024), tarfile.GNUTYPE_SPARSE))
    header[257:265] = b"ustar  \0"
    header[386:410] = b"%011o\0%011o\0" % (0, 1024)
    header[483:495] = b"%011o\0" % (1 << 32)
    return with_size(bytes(header), 1024)


UNSAFE: dict[str, tuple[bytes, str]] = {
    "up": (member("../outside"), "points out of it"),
    "up and down": (member("1/../../outside"), "points out of it"),
    "absolute": (member("/tmp/outside"), "points out of it"),
    "absolute by PAX": (pax(path="/tmp/outside") + member("inside"), "points out of it"),
    "up by a long name": (
        member("././@LongLink", b"../" * 50 + b"outside\0", tarfile.GNUTYPE_LONGNAME)
        + member("inside"),
        "points out of it",
    ),
    "drive": (member("C:/outside"), "points out of it"),
    "drive and no root": (member("c:outside"), "points out of it"),
    "backslashes": (member("..\\outside"), "not a name that every system can have"),
    "a link": (link("1/saved_model.pb", "/etc/passwd"), "a link or a device"),
    "a hard link": (link("1/saved_model.pb", "../x", tarfile.LNKTYPE), "a link or a device"),
    "through a link": (link("1", "..") + member("1/outside"), "'1' is a link or a device"),
    "through a hard link": (
        member("a") + link("b", "a", tarfile.LNKTYPE) + member("b"),
        "'b' is a link or a device",
    ),
    "fifo": (link("pipe", "", tarfile.FIFOTYPE), "a link or a device"),
    "character device": (link("null", "", tarfile.CHRTYPE), "a link or a device"),
    "block device": (link("disk", "", tarfile.BLKTYPE), "a link or a device"),
    "unknown type": (member("x", b"x", b"Z"), "a link or a device"),
    "too large": (member("big", bytes(LIMIT + 1)), f"more than {LIMIT} bytes"),
    "says it is too large": (with_size(member("big"), 1 << 70), f"more than {LIMIT} bytes"),
    "negative size": (with_size(member("x"), -512), "refused|no sense|not a readable"),
    "negative size by PAX": (pax(size="-512") + member("x"), "refused|no sense|readable"),
    "sparse": (sparse(), "sparse file"),
    "sparse by PAX": (
        pax(**{"GNU.sparse.size": "1099511627776", "GNU.sparse.map": "0,1"}) + member("x"),
        "sparse file",
    ),
    "a file and a directory": (member("1") + member("1/x"), "twice"),
    "a directory and a file": (member("1/x") + member("1"), "twice"),
    "no name": (member("./"), "no file that could be"),
    "a part of 300 bytes": (member("\u00e9" * 150), "too long or too deep"),
    "a name of 5000 bytes": (member("deep/" * 30 + "x" * 5000), "too long or too deep"),
    "2000 directories": (member("d/" * 2000 + "x"), "too long or too deep"),
    "a header of 2 MB": (pax(comment="x" * (2 * MIB)) + member("x"), "goes on where a file"),
    "a thousand headers": (pax(comment="x") * 1000 + member("x"), "no sense|goes on where"),
}


@pytest.mark.parametrize(("parts", "said"), UNSAFE.values(), ids=list(UNSAFE))
def test_what_is_unsafe_is_refused_in_one_sentence(parts: bytes, said: str, tmp_path: Path) -> None:
    source = packed(tmp_path / "model.tar.gz", parts, END)
    (tmp_path / "target").mkdir()
    with pytest.raises(SetupError, match=said) as caught:
        unpack(source, tmp_path / "target", LIMIT)
    text = str(caught.value)
    assert "model.tar.gz" in text
    assert len(text) < 400 + len(str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"model.tar.gz", "target"}
    assert not [path for path in (tmp_path / "target").rglob("*") if path.is_symlink()]
    assert not Path("/tmp/outside").exists()


def unpacked(tmp_path: Path, *parts: bytes) -> dict[str, bytes]:
    target = tmp_path / "target"
    target.mkdir()
    unpack(packed(tmp_path / "model.tar.gz", *parts, END), target, LIMIT)
    files = (path for path in target.rglob("*") if path.is_file())
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


def test_names_in_every_script_come_out_as_they_are(tmp_path: Path) -> None:
    """One from each of 300 blocks of Unicode, the odd ones among the plain ones, too."""
    names = [f"code/a{chr(point)}z" for point in range(0xA1, 0xA1 + 300 * 64, 64)]
    names += ["code/a\u202eb", "code/ a b ", "code/-rf", "code/a\nb", "code/\u200b", "code/..."]
    found = unpacked(tmp_path, *(member(name, name.encode()) for name in names))
    assert found == {name: name.encode() for name in names}
    assert len(found) == 306


def test_bytes_that_are_no_text_come_out_as_they_are(tmp_path: Path) -> None:
    raw = member("code/xxx").replace(b"code/xxx", b"code/\xff\xfe\x80")
    changed = bytearray(raw)
    changed[148:156] = b"        "
    changed[148:156] = b"%06o\0 " % sum(changed[: tarfile.BLOCKSIZE])
    (name,) = unpacked(tmp_path, bytes(changed))
    assert os.fsencode(name) == b"code/\xff\xfe\x80"


def test_names_that_differ_in_case_alone_are_two_files_or_refused(tmp_path: Path) -> None:
    (tmp_path / "PROBE").touch()
    parts = (member("A.py", b"1"), member("a.py", b"2"))
    if (tmp_path / "probe").exists():  # a disk that makes no difference
        with pytest.raises(SetupError, match="another spelling"):
            unpacked(tmp_path, *parts)
    else:
        assert unpacked(tmp_path, *parts) == {"A.py": b"1", "a.py": b"2"}


def test_of_a_name_that_is_there_twice_the_last_counts(tmp_path: Path) -> None:
    """As `tar -r` leaves it behind, and `tar -x` takes it."""
    found = unpacked(tmp_path, member("./m", b"long before"), member("m", b"now"))
    assert found == {"m": b"now"}


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    parts = [member(str(mode), mode=mode, uid=12345, gid=12345) for mode in (0o6777, 0, 0o1777)]
    assert len(unpacked(tmp_path, *parts)) == 3
    for path in (tmp_path / "target").iterdir():
        assert path.stat().st_mode & 0o7111 == 0
        assert path.stat().st_mode & 0o400
        assert path.stat().st_uid == os.getuid()


def test_one_hundred_thousand_members(tmp_path: Path) -> None:
    each = b"".join(member(f"m{number}", b"") for number in range(1000))
    source = packed(tmp_path / "m.tar.gz", *[gzip.compress(each, 1)] * 100, END)
    (tmp_path / "target").mkdir()
    with pytest.raises(SetupError, match=f"more than {archives.MAX_MEMBERS} members"):
        unpack(source, tmp_path / "target", LIMIT)
    assert len(list((tmp_path / "target").iterdir())) == 1000


@pytest.mark.parametrize("kind", ["xz", "bz2", "zip"])
def test_other_kinds_of_archives_are_named(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "model.tar.gz"
    if kind == "zip":
        source.write_bytes(b"PK\x03\x04 and so on")
    else:
        with tarfile.open(source, f"w:{kind}") as tar:  # type: ignore[call-overload]
            tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    with pytest.raises(SetupError, match=r"is packed by .*; SageMaker takes gzip: pack it with"):
        unpack(source, tmp_path, LIMIT)


def test_a_wrong_sum_at_the_end_is_noticed(tmp_path: Path) -> None:
    whole = gzip.compress(member("m", b"content") + END)
    source = tmp_path / "model.tar.gz"
    source.write_bytes(whole[:-8] + b"\0\0\0\0" + whole[-4:])
    with pytest.raises(SetupError, match="not a readable"):
        unpack(source, tmp_path, LIMIT)


FLAT = """
import resource, sys
from pathlib import Path
from emulator.archives import check_zip, unpack
from emulator.errors import SetupError
source, target, limit = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(source, target, limit)
    said = "unpacked"
except SetupError as error:
    said = str(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, said)
"""
GIGABYTE = 1 << 30


def claims(kind: bytes, name: str = "x") -> bytes:
    return with_size(member(name, b"", kind), GIGABYTE)


BOMBS: dict[str, tuple[tuple[bytes, ...], str]] = {
    "zeros": ((with_size(member("x", b""), 96 * MIB), ZEROS * 96), "unpacked"),
    "a gigabyte of zeros": ((claims(tarfile.REGTYPE), ZEROS * 1024), "more than 100 times as many"),
    "and many files": (
        (gzip.compress(with_size(member("x", b""), MIB) + bytes(MIB)) * 1024,),
        "more than 100 times as many",
    ),
    "PAX header": ((claims(tarfile.XHDTYPE), ZEROS * 1024), "goes on"),
    "global PAX header": ((claims(tarfile.XGLTYPE), ZEROS * 1024), "goes on"),
    "long name": ((claims(tarfile.GNUTYPE_LONGNAME), ZEROS * 1024), "goes on"),
    "long link": ((claims(tarfile.GNUTYPE_LONGLINK), ZEROS * 1024), "goes on"),
    "directory": ((claims(tarfile.DIRTYPE), ZEROS * 1024), "goes on|more than"),
    "map of a sparse file": (
        (
            pax(**{"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}),
            with_size(member("x", b""), 100),
            ZEROS * 1024,
        ),
        "goes on|no sense|not a readable",
    ),
    "long headers before many files": (
        (gzip.compress(pax(comment="x" * 500_000) + member("x")) * 300,),
        "unpacked",
    ),
    "no end": ((member("x"), END, ZEROS * 4096), "goes on"),
    "headers without end": ((gzip.compress(pax(comment="x" * 400) * 50_000),), "goes on|no sense"),
}


@pytest.mark.parametrize(("parts", "said"), BOMBS.values(), ids=list(BOMBS))
def test_memory_stays_flat(parts: tuple[bytes, ...], said: str, tmp_path: Path) -> None:
    """Measured in a process of its own: a gigabyte would show."""
    source = packed(tmp_path / "m.tar.gz", *parts, END)
    (tmp_path / "target").mkdir()
    arguments = [str(source), str(tmp_path / "target"), str(10 * GIGABYTE)]
    done = subprocess.run(
        [sys.executable, "-c", FLAT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    grown, _, words = done.stdout.partition(" ")
    assert int(grown) < 24 * 1024, "kilobytes"
    assert any(one in words for one in said.split("|")), words
    written = sum(path.stat().st_size for path in (tmp_path / "target").iterdir())
    assert written <= (96 * MIB if said == "unpacked" else MIB)


def zipped(path: Path, **contents: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in contents.items():
            file.writestr(name, content)
    return path


def test_a_zip_file_is_held_to_what_it_says(tmp_path: Path) -> None:
    """Of one gigabyte nothing is unpacked to find out; the sizes are written at the end."""
    plain = zipped(tmp_path / "plain", config=b"{}", weights=bytes(1000))
    check_zip(plain, "The model x", 1002)
    with pytest.raises(SetupError, match="The model x unpacks to more than 1001 bytes"):
        check_zip(plain, "The model x", 1001)
    bomb = zipped(tmp_path / "bomb", config=bytes(MIB))
    size = (MIB).to_bytes(4, "little")
    content = bomb.read_bytes()
    bomb.write_bytes(content.replace(size, GIGABYTE.to_bytes(4, "little")))
    with pytest.raises(SetupError, match=r"The model x is refused: its .* 100 times as many"):
        check_zip(bomb, "The model x", 10 * GIGABYTE)


def test_a_long_list_of_members_is_not_read(tmp_path: Path) -> None:
    """Empty ones: they unpack to nothing, but every one has its place in memory."""
    many = zipped(tmp_path / "many", **{f"m{number}": b"" for number in range(25_000)})
    with pytest.raises(SetupError, match="The model x is damaged: its list of members has more"):
        check_zip(many, "The model x", GIGABYTE)


def test_whatever_is_in_it_the_answer_is_a_sentence(tmp_path: Path) -> None:
    """Archives and zip files with any byte changed, or cut off anywhere."""
    draw = random.Random(1)
    tar = pax(comment="x") + sparse() + member("a/b") + link("c", "d") + END
    zips = zipped(tmp_path / "whole", config=b"{}", weights=bytes(100)).read_bytes()
    said = list[str]()
    for number in range(600):
        whole, kind = ((zips, check_zip), (tar, unpack), (gzip.compress(tar), unpack))[number % 3]
        changed = bytearray(whole)
        for _ in range(draw.randint(0, 4)):
            changed[draw.randrange(len(changed))] = draw.choice(
                (0, 0x80, 0xFF, draw.randrange(256))
            )
        source = tmp_path / "changed"
        source.write_bytes(changed[: draw.choice((len(whole), draw.randrange(len(whole))))])
        target = Path(tempfile.mkdtemp(dir=tmp_path))
        try:
            if kind is unpack:
                unpack(source, target, LIMIT)
            else:
                check_zip(source, "The model x", LIMIT)
        except SetupError as error:
            said.append(str(error))
        assert sum(path.stat().st_size for path in target.rglob("*")) <= LIMIT
    assert len(said) > 300
    assert all(len(words.splitlines()) == 1 for words in said)
