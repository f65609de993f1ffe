"""From an entry to all its files: parts of a split GGUF and a vision projector (issue 5.3)."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from tasks.catalogue.artifact import Artifact, model_dir
from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.resolve import ResolvedModel, resolve, resolve_entry
from tasks.engine.launch_spec import launch_spec
from tasks.engine.version import launch_of
from tasks.errors import UsageError

from tests.catalogue.test_resolve import POSIX
from tests.support.catalogues import A64, B64, VALID, catalogue
from tests.support.command_lines import parse

C64, D64, E64 = "c" * 64, "d" * 64, "e" * 64
E_ORG = "https://e.org"
TEXT = f"""{VALID}\
  split:
    title: S
    url: {E_ORG}/s-00001-of-00003.gguf
    mirrors: [{E_ORG}/copy/s-00001-of-00003.gguf]
    parts: [{{sha256: {B64}, size: 10}}, {{sha256: {C64}, size: 20}}, {{sha256: {E64}, size: 30}}]
    mmproj: {{url: eyes/p.gguf, sha256: {D64}, size: 4}}
    license: X
  free:
    title: F
    url: {E_ORG}/f-00001-of-00002.gguf
    license: X
  whole:
    title: W
    url: {E_ORG}/w.gguf
    sha256: {A64}
    license: X
  seeing:
    title: E
    hf: o/r
    file: q/m.llamafile
    mmproj: {{file: p.gguf}}
    license: X
"""
CATALOGUE = catalogue(TEXT)
HOME = f"/cache/models/{B64[:16]}"


def job(line: str) -> ResolvedModel:
    [found] = resolve(parse(shlex.split(line)), CATALOGUE, POSIX).by_name.values()
    return found


def brief(one: Artifact) -> tuple[Any, ...]:
    return one.label, one.target, one.sources, one.sha256, one.size


def test_a_split_model() -> None:
    """Issue 5.3: its parts lie beside the first one, the projector under its own digest."""
    found = job("serve:split")
    assert [brief(one) for one in found.files] == [
        (
            "split",
            f"{HOME}/s-00001-of-00003.gguf",
            (f"{E_ORG}/s-00001-of-00003.gguf", f"{E_ORG}/copy/s-00001-of-00003.gguf"),
            B64,
            10,
        ),
        (
            "split part 2 of 3",
            f"{HOME}/s-00002-of-00003.gguf",
            (f"{E_ORG}/s-00002-of-00003.gguf", f"{E_ORG}/copy/s-00002-of-00003.gguf"),
            C64,
            20,
        ),
        (
            "split part 3 of 3",
            f"{HOME}/s-00003-of-00003.gguf",
            (f"{E_ORG}/s-00003-of-00003.gguf", f"{E_ORG}/copy/s-00003-of-00003.gguf"),
            E64,
            30,
        ),
        ("split mmproj", f"/cache/models/{D64[:16]}/p.gguf", ("/recipe/eyes/p.gguf",), D64, 4),
    ]
    assert found.companions == (CompanionFile("mmproj", f"/cache/models/{D64[:16]}/p.gguf"),)
    assert (found.size, found.engine) == (64, "llamafile")


def test_an_unpinned_one() -> None:
    """Issue 5.3: beside the first all the same, and of a size that nobody knows."""
    found = job("download:free")
    folder = model_dir("/cache", None, f"{E_ORG}/f-00001-of-00002.gguf")
    assert [one.target for one in found.files] == [f"{folder}/f-0000{n}-of-00002.gguf" for n in (1, 2)]
    assert found.size is None


def test_a_llamafile_with_a_projector() -> None:
    """Issue 5.3: of the same repository, in a folder of its own."""
    found = job("serve:seeing")
    hub = "https://huggingface.co/o/r/resolve/main"
    assert found.engine == "self"
    assert [one.sources for one in found.files] == [(f"{hub}/q/m.llamafile",), (f"{hub}/p.gguf",)]
    assert found.companions[0].path == f"{model_dir('/cache', None, f'{hub}/p.gguf')}/p.gguf"


def test_one_file_is_one_file() -> None:
    """Issue 5.3: nothing more for what is whole."""
    assert (job("serve").extra_files, job("serve").companions) == ((), ())


def test_another_url_of_a_split_model() -> None:
    """R4, issue 5.3: all its parts come from there, held to the digests of the entry; the projector stays."""
    found = job(f"download:split --llamafile-url {E_ORG}/mine/s-00001-of-00003.gguf")
    assert found.confirmation
    assert [one.sources for one in found.files[:3]] == [
        (f"{E_ORG}/mine/s-0000{n}-of-00003.gguf",) for n in (1, 2, 3)
    ]
    assert [one.sha256 for one in found.files] == [B64, C64, E64, D64]
    assert [one.target for one in found.files[:3]] == [f"{HOME}/s-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


def test_a_split_model_by_its_url_alone() -> None:
    """Issue 5.3: --llamafile-url names the first part, and all are fetched."""
    found = job(f"serve --llamafile-url={E_ORG}/new-00001-of-00002.gguf?x=1")
    folder = model_dir("/cache", None, f"{E_ORG}/new-00001-of-00002.gguf?x=1")
    assert [brief(one)[1:3] for one in found.files] == [
        (f"{folder}/new-0000{n}-of-00002.gguf", (f"{E_ORG}/new-0000{n}-of-00002.gguf?x=1",)) for n in (1, 2)
    ]


def test_an_own_split_file() -> None:
    """Issue 5.3: the parts of a file of the user's lie beside it, whoever wrote them."""
    found = job("serve --llamafile /srv/x-00001-of-00002.gguf")
    assert (found.artifact.target, found.extra_files) == ("/srv/x-00001-of-00002.gguf", ())


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        pytest.param(
            f"serve --llamafile-url {E_ORG}/x-00002-of-00003.gguf",
            f"--llamafile-url: {E_ORG}/x-00002-of-00003.gguf is part 2 of 3: "
            f"expected the first, {E_ORG}/x-00001-of-00003.gguf",
            "",
            id="the second part",
        ),
        pytest.param(
            f"serve --llamafile my.gguf --llamafile-url {E_ORG}/x-00001-of-00003.gguf",
            f"{E_ORG}/x-00001-of-00003.gguf is the first of 3 files, which must keep their names",
            "remove --llamafile",
            id="under another name",
        ),
    ],
)
def test_refused(line: str, what: str, fix: str) -> None:
    """Issue 5.3: before anything is fetched for nothing."""
    with pytest.raises(UsageError) as caught:
        job(line)
    assert (caught.value.what, caught.value.fix) == (what, fix)


def spec_of(asked: ResolvedModel, version: str) -> dict[str, str]:
    launch = launch_of("linux", asked)
    return launch_spec(asked, launch, version=version, key="").record_spec(None)


def test_what_a_running_server_is_compared_by() -> None:
    """Issue 5.3: another projector, and another part, are another server; one file is named as before."""
    found, spec = job("serve:split"), spec_of(job("serve:split"), "0.10.5")
    other = found._replace(
        companions=(CompanionFile("mmproj", "/q.gguf"),),
        extra_files=(*found.extra_files[:2], found.extra_files[2]._replace(target="/q.gguf")),
    )
    assert spec["--mmproj"] == found.companions[0].path
    changed = spec_of(other, "0.10.5")
    assert {key for key in spec if spec[key] != changed[key]} == {"--mmproj"}
    part = found._replace(extra_files=(found.extra_files[0]._replace(sha256=A64), *found.extra_files[1:]))
    changed = spec_of(part, "0.10.5")
    assert {key for key in spec if spec[key] != changed[key]} == {"model"}
    assert spec_of(job("serve"), "")["model"] == A64


def test_catalogued_has_them_all() -> None:
    """Issue 5.5: what looks at an entry sees every file."""
    assert resolve_entry("split", CATALOGUE, POSIX).files == job("download:split").files


@pytest.mark.parametrize(
    "line",
    [
        f"serve --llamafile-url {E_ORG}/new-00001-of-00002.gguf --sha256 {B64}",
        f"serve --llamafile-url http://h/new-00001-of-00002.gguf --sha256 {B64}",
        f"download --model free --llamafile-url {E_ORG}/f-00001-of-00002.gguf --sha256 {B64}",
        f"download --model whole --llamafile-url {E_ORG}/new-00001-of-00002.gguf",
    ],
)
def test_a_digest_of_one_part_alone(line: str) -> None:
    """Security 8: the other parts could be anything; refused with the command that pins each."""
    with pytest.raises(
        UsageError, match="is the first of 2 files, and only 1 of them would be verified"
    ) as caught:
        job(line)
    assert caught.value.fix == f"doit add {shlex.split(line)[shlex.split(line).index('--llamafile-url') + 1]}"


def test_a_digest_of_the_first_part_beside_those_of_the_entry() -> None:
    """Security 8: every part has one."""
    found = job(f"download:split --llamafile-url {E_ORG}/s-00001-of-00003.gguf --sha256 {A64}")
    assert [one.sha256 for one in found.files] == [A64, C64, E64, D64]


def test_unpinned_parts_of_two_hosts_lie_apart() -> None:
    """Security 8: what one host has sent is never used for another."""
    hosts = ("https://a.org", "https://b.org")
    targets = [job(f"serve --llamafile-url {host}/x-00001-of-00002.gguf").files[1].target for host in hosts]
    assert targets[0] != targets[1]
