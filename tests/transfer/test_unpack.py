"""Archives are hostile until proven otherwise: what is refused, and what a kill leaves."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from tasks.cache import stamps, store, unpacked
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.errors import IntegrityError
from tasks.system import files
from tasks.transfer import archive_reader, archive_rules
from tasks.transfer.archive_rules import Kind, Member, RefusedArchiveError, entries_of
from tasks.transfer.unpack import ensure_unpacked

from tests.support.project import REPO
from tests.support.releases import PROGRAM, release, tar, zipped

posix = pytest.mark.skipif(os.name != "posix", reason="links and modes as POSIX has them")
GOOD = {"llama-b1/llama-server": PROGRAM}
LINK = stat.S_IFLNK | 0o777


def here(cache: Path, data: bytes, name: str = "llama-b1-bin-x.tar.gz") -> Artifact:
    """An archive that was downloaded and verified."""
    digest = hashlib.sha256(data).hexdigest()
    path = cache / "engines" / digest[:16] / name
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    artifact = Artifact("llama-server b1", (), str(path), digest, len(data), unpacked=f"{path}.unpacked")
    status = files.stat(path)
    assert status
    stamps.write_stamp(str(cache), artifact, Stamp(status, digest, "https://x.org", {}))
    return artifact


def info(name: str, **fields: Any) -> tarfile.TarInfo:
    """A member of a tar without bytes."""
    made = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(made, key, value)
    return made


def lying_size() -> bytes:
    """A zip whose file has more bytes than its directory states."""
    data = bytearray(zipped({"llama-server": PROGRAM, "x": b"0" * 100}))
    at = data.rindex(b"PK\1\2")
    data[at + 24 : at + 28] = (5).to_bytes(4, "little")
    return bytes(data)


def long_header() -> bytes:
    """A tar whose extended header would fill the memory."""
    header = info("x", type=tarfile.XHDTYPE, size=200 * 1024**2).tobuf(tarfile.PAX_FORMAT)
    return gzip.compress(header + b"\0" * 4 * 1024**2, 1)


def extended(kind: bytes, records: Iterable[str]) -> bytes:
    """An extended header of a tar, of these `key=value`."""
    body = "".join(f"{len(text) + 4:02} {text}\n" for text in records).encode()
    return info("x", type=kind, size=len(body)).tobuf() + body + b"\0" * (-len(body) % 512)


def many_keys() -> bytes:
    """A tar whose global keys are copied for each member: 200 kB of them once took 60 GB of memory."""
    return gzip.compress(extended(tarfile.XGLTYPE, (f"key{n:03}=" for n in range(100))) + raw("a"), 1)


def many_headers() -> bytes:
    """A tar of empty files, each with a long header that is kept."""
    comment = extended(tarfile.XHDTYPE, ["comment=" + "x" * 80] * 160)
    return gzip.compress(b"".join(comment + raw(f"f{n}") for n in range(1200)), 1)


def raw(name: str) -> bytes:
    """The header of an empty file."""
    return info(name).tobuf()


def long_list() -> bytes:
    """A zip whose list of members is read as a whole."""
    size = archive_reader._MAX_DIRECTORY + 1
    return b"PK\3\4" + bytes(size) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, size, 4, 0)


def lost_list() -> bytes:
    """A zip whose list of members would begin before the file."""
    data = bytearray(zipped({"llama-server": PROGRAM}))
    at = data.rindex(b"PK\5\6")
    data[at + 16 : at + 20] = (2**28).to_bytes(4, "little")
    return bytes(data)


def compressed(method: int) -> bytes:
    """A zip with another compression than the usual one."""
    box = io.BytesIO()
    with zipfile.ZipFile(box, "w", method) as archive:
        archive.writestr("llama-server", PROGRAM)
    return box.getvalue()


def encrypted() -> bytes:
    """A zip whose member needs a password."""
    data = bytearray(zipped({"llama-server": PROGRAM}))
    for magic, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        at = data.index(magic)
        data[at + flags] |= 1
    return bytes(data)


HOSTILE = [
    ("traversal", tar({**GOOD, "llama-b1/../../evil": b"x"}), "expected the name of a file"),
    ("traversal of the root", tar({**GOOD, "../evil": b"x"}), "expected the name of a file"),
    ("absolute", tar({**GOOD, "/tmp/evil": b"x"}), "is an absolute path"),
    ("link out", tar({**GOOD, "llama-b1/a.so": "../../evil"}), "leads out of the folder"),
    ("absolute link", tar({**GOOD, "llama-b1/a.so": "/etc/passwd"}), "leads out of the folder"),
    ("link to nothing", tar({**GOOD, "llama-b1/a.so": "b.so"}), "leads to no file: 'b.so'"),
    ("links in a circle", tar({**GOOD, "llama-b1/a": "b", "llama-b1/b": "a"}), "leads to no file"),
    ("file below a link", tar({**GOOD, "llama-b1/d": ".", "llama-b1/d/x": b"x"}), "x' conflicts with"),
    ("link to a folder", tar({**GOOD, "llama-b1/a/x": b"x", "llama-b1/b": "a"}), "leads to no file"),
    ("hard link", tar(GOOD, [info("llama-b1/h", type=tarfile.LNKTYPE, linkname="/etc/x")]), "a hard link"),
    ("device", tar(GOOD, [info("llama-b1/d", type=tarfile.BLKTYPE)]), "a device or a pipe"),
    ("pipe", tar(GOOD, [info("llama-b1/p", type=tarfile.FIFOTYPE)]), "a device or a pipe"),
    ("twice", tar(GOOD, [info("llama-b1/./llama-server")]), "have one path"),
    ("other case", tar({**GOOD, "llama-b1/A": b"1", "llama-b1/a": b"2"}), "'llama-b1/A' have one path"),
    ("other accents", tar({**GOOD, "llama-b1/\u00e9": b"1", "llama-b1/e\u0301": b"2"}), "have one path"),
    ("folder in other case", tar({"L/llama-server": PROGRAM, "l/x": b"2"}), "'l/x' conflicts with 'L'"),
    ("file and folder", tar({**GOOD, "llama-b1/a": b"1", "llama-b1/a/b": b"2"}), "/b' conflicts with 'll"),
    ("two roots", tar({**GOOD, "other/x": b"x"}), "in its only folder; it begins with llama-b1, other"),
    ("no program", tar({"llama-b1/llama-cli": PROGRAM}), "no program llama-server"),
    ("program is a link", tar({"l/x": PROGRAM, "l/llama-server": "x"}), "no program llama-server"),
    ("nothing", tar({}), "it begins with nothing"),
    ("newline", tar({**GOOD, "llama-b1/a\nb": b"x"}), "cannot be in the name of a file"),
    ("reserved name", tar({**GOOD, "llama-b1/NUL.txt": b"x"}), "Windows reserves this name"),
    ("trailing dot", tar({**GOOD, "llama-b1/a.": b"x"}), "cannot end with '.'"),
    ("stream of NTFS", tar({**GOOD, "llama-b1/a:b": b"x"}), "':' cannot be in the name"),
    ("deep", tar({**GOOD, f"llama-b1/{'d/' * 20}x": b"x"}), "too deep or too long"),
    ("not gzip", b"no archive at all", "it is damaged"),
    ("cut off", release()[:-500], "it is damaged"),
    ("long header", long_header(), "a header has more bytes"),
    ("many keys", many_keys(), "a header has more keys"),
    ("many headers", many_headers(), "its headers have more than 16,777,216 bytes"),
    ("long name", tar({**GOOD, "/" + "a" * 9000: b"x"}), f"'/{'a' * 79}'… is an absolute path"),
    ("zip slip", zipped({"llama-server": PROGRAM, "..\\..\\evil": b"x"}), "'\\\\' cannot be in the name"),
    ("zip traversal", zipped({"llama-server": PROGRAM, "../evil": b"x"}), "expected the name of a file"),
    ("zip drive", zipped({"llama-server": PROGRAM, "C:/evil": b"x"}), "':' cannot be in the name"),
    ("zip NUL", zipped({"llama-server": PROGRAM, "a\0b": b"x"}), "'\\x00' cannot be in the name"),
    ("zip link", zipped({"llama-server": PROGRAM, "a": b"../../evil"}, {"a": LINK}), "leads out of"),
    ("zip device", zipped({"llama-server": PROGRAM, "a": b""}, {"a": stat.S_IFCHR | 0o600}), "a device"),
    ("zip lies", lying_size(), "it is damaged"),
    ("zip encrypted", encrypted(), "is encrypted"),
    ("zip bzip2", compressed(zipfile.ZIP_BZIP2), "'llama-server' has compression method 12"),
    ("zip LZMA", compressed(zipfile.ZIP_LZMA), "expected 0 (stored) or 8 (deflated)"),
    ("zip long list", long_list(), "its list of members is too long"),
    ("zip lost list", lost_list(), "it is damaged"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "why"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_a_hostile_archive(tmp_path: Path, data: bytes, why: str) -> None:
    """It is refused as a whole: nothing appears but the archive and its stamp."""
    is_zip = data.startswith(b"PK")
    artifact = here(tmp_path / "cache", data, "a.zip" if is_zip else "a.tar.gz")
    before = sorted(path for path in tmp_path.rglob("*") if "locks" not in path.parts)
    with pytest.raises(IntegrityError) as error:
        ensure_unpacked(str(tmp_path / "cache"), artifact, "llama-server")
    assert "llama-server b1 is not unpacked: " in error.value.what
    assert why in error.value.what
    assert "\n" not in error.value.what
    assert sorted(path for path in tmp_path.rglob("*") if "locks" not in path.parts) == before


@pytest.mark.parametrize(
    ("member", "count", "why"),
    [
        (Member("a", size=archive_rules.MAX_BYTES), 2, "its files have more than"),
        (Member("a", size=-1), 1, "its files have more than"),
        (Member("d", Kind.FOLDER), archive_rules.MAX_MEMBERS + 1, "more than 10,000 members"),
    ],
)
def test_a_bomb_is_not_read_to_its_end(member: Member, count: int, why: str) -> None:
    """Sizes that members state are added up before a byte is written."""
    members = (member._replace(name=f"{member.name}{number}") for number in range(10**9))
    with pytest.raises(RefusedArchiveError, match=why):
        entries_of(members, "llama-server")
    assert next(members).name == f"{member.name}{count}"


def test_links_count_as_copies() -> None:
    """A system without links gets a copy for each: 9,000 of one file fill a disk."""
    half = Member("llama-server", size=archive_rules.MAX_BYTES // 2)
    links = [Member(f"l{number}", Kind.LINK, link="llama-server") for number in range(2)]
    entries = entries_of([half, links[0]], "llama-server")
    assert archive_rules.bytes_of(entries, copies_links=False) == half.size
    assert archive_rules.bytes_of(entries, copies_links=True) == 2 * half.size
    with pytest.raises(RefusedArchiveError, match="without links, its files have more than"):
        entries_of([half, *links], "llama-server")


@posix
def test_what_is_unpacked(tmp_path: Path) -> None:
    """The files of the only folder, with two modes and no other; links inside; never setuid."""
    extra = [info("llama-b1/odd", mode=0o6777)]
    more = {"llama-b1/libx.so.1": b"lib", "llama-b1/a/b": b"1"}
    members: dict[str, bytes | str] = {**GOOD, **more, "llama-b1/libx.so": "libx.so.1"}
    artifact = here(tmp_path, tar(members, extra))
    ensure_unpacked(str(tmp_path), artifact, "llama-server")
    top = Path(unpacked.folder_of(artifact))
    modes = {
        str(p.relative_to(top)): stat.S_IMODE(p.lstat().st_mode) for p in top.rglob("*") if not p.is_symlink()
    }
    assert modes == {"llama-server": 0o755, "libx.so.1": 0o755, "a": 0o755, "a/b": 0o644, "odd": 0o755}
    assert os.readlink(top / "libx.so") == "libx.so.1"
    assert unpacked.is_intact(artifact)
    assert {path.name for path in top.parent.iterdir()} == {"bin", "manifest.json"}


def test_a_zip_without_modes(tmp_path: Path) -> None:
    """Windows has no modes: the program can be started where there are some."""
    artifact = here(tmp_path, zipped({"llama-server": PROGRAM, "llama.dll": b"x"}), "a.zip")
    ensure_unpacked(str(tmp_path), artifact, "llama-server")
    assert files.is_executable(f"{unpacked.folder_of(artifact)}/llama-server")


def change(top: Path) -> None:
    (top / "libllama.so.1").write_bytes(b"another" * 1000)


def remove(top: Path) -> None:
    (top / "licenses" / "LICENSE").unlink()


def add(top: Path) -> None:
    (top / "libggml-evil.so").write_bytes(b"x")


def relink(top: Path) -> None:
    (top / "libllama.so").unlink()
    (top / "libllama.so").symlink_to("/etc/passwd")


def as_link(top: Path) -> None:
    (top / "llama-server").rename(top.parent.parent / "moved")
    (top / "llama-server").symlink_to(top.parent.parent / "moved")


def pipe(top: Path) -> None:
    (top / "libllama.so.1").unlink()
    os.mkfifo(top / "libllama.so.1")


def mode(top: Path) -> None:
    (top / "llama-server").chmod(0o644)


def no_folder(top: Path) -> None:
    shutil.rmtree(top.parent)
    top.parent.write_bytes(b"a file")


def manifest(top: Path) -> None:
    (top.parent / "manifest.json").write_text("{}")


def manifest_as_folder(top: Path) -> None:
    (top.parent / "manifest.json").unlink()
    (top.parent / "manifest.json").mkdir()


def touch(top: Path) -> None:
    os.utime(top / "libllama.so.1")


@posix
@pytest.mark.parametrize(
    "damage",
    [change, remove, add, relink, as_link, pipe, mode, no_folder, manifest, manifest_as_folder, touch],
)
def test_what_is_not_the_archive_is_replaced(tmp_path: Path, damage: Any) -> None:
    """Not a byte is downloaded: the archive is beside it. The same bytes stay, with a new manifest."""
    artifact = here(tmp_path, release())
    ensure_unpacked(str(tmp_path), artifact, "llama-server")
    top = Path(unpacked.folder_of(artifact))
    before = top.stat()
    damage(top)
    assert not unpacked.is_intact(artifact)
    with pytest.raises(IntegrityError, match="does not have the files that were verified"):
        stamps.check_unchanged(str(tmp_path), [artifact])
    ensure_unpacked(str(tmp_path), artifact, "llama-server")
    assert unpacked.is_intact(artifact)
    # a new folder may get the inode of a removed one
    is_same = (top.stat().st_ino, top.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns)
    assert is_same == (damage in (manifest, manifest_as_folder, touch))
    assert {path.name for path in Path(artifact.target).parent.iterdir()} <= {
        *(f"{Path(artifact.target).name}{end}" for end in ("", ".stamp.json", ".unpacked")), "moved",
    }  # fmt: skip


def test_folders_without_end(tmp_path: Path) -> None:
    """Deeper than Python's stack, as another user can make them: they are not searched to the end."""
    (tmp_path / "d" / "/".join("d" * 99)).mkdir(parents=True)
    assert list(unpacked.contents(str(tmp_path))) == [("/".join("d" * 52), None)]
    (tmp_path / "d" / "/".join("d" * 99) / "file").touch()
    assert store.files_of(str(tmp_path), ["d"]) == []


@posix
def test_a_changed_archive_is_not_unpacked(tmp_path: Path) -> None:
    """The pin is checked where the bytes are used."""
    artifact = here(tmp_path, release())
    Path(artifact.target).write_bytes(release("b2"))
    with pytest.raises(IntegrityError, match="is not the file that was verified"):
        ensure_unpacked(str(tmp_path), artifact, "llama-server")
    assert not Path(artifact.unpacked).exists()


KILLED = """
    import os, pickle, signal, sys
    from tasks.cache import unpacked
    from tasks.transfer.unpack import ensure_unpacked
    cache, artifact = pickle.loads(bytes.fromhex(sys.argv[1]))
    def at(step, name, real):
        def call(*args, **keys):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **keys)
        return call
    number = 0
    damaged = os.path.join(unpacked.folder_of(artifact), "libllama.so.1")
    while True:
        number += 1
        if sys.argv[2] == "again":
            ensure_unpacked(cache, artifact, "llama-server")
            with open(damaged, "wb") as file:
                file.write(b"x")
        child = os.fork()
        if not child:
            left = [number]
            for name in ("fsync", "rename", "symlink", "replace"):
                setattr(os, name, at(number, name, getattr(os, name)))
            ensure_unpacked(cache, artifact, "llama-server")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        is_old = os.path.exists(damaged) and os.path.getsize(damaged) == 1
        if os.path.exists(artifact.unpacked) and not unpacked.is_intact(artifact) and not is_old:
            sys.exit(f"half of it is there after step {number}")
        if not os.WIFSIGNALED(status):
            break
    print(number)
"""


@posix
@pytest.mark.parametrize("time", ["first", "again"])
def test_a_kill_at_every_step(tmp_path: Path, time: str) -> None:
    """SIGKILL before each write that counts: the folder is whole or not there, and the next run finishes."""
    import pickle

    artifact = here(tmp_path, release())
    given = pickle.dumps((str(tmp_path), artifact)).hex()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), given, time],
        cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    assert unpacked.is_intact(artifact)
    names = {
        path.name.replace(Path(artifact.target).name, "") for path in Path(artifact.target).parent.iterdir()
    }
    assert names == {"", ".stamp.json", ".unpacked"}
