"""The Hub's address and token, and the model caches of other programs."""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.artifact import engine_dir, engine_filename, model_dir
from tasks.network import huggingface

from tests.support.catalogues import A64

HOME = "/home/me"
HUB = "https://huggingface.co"
CORP = {"HF_ENDPOINT": "https://hub.corp.example/hf"}
LOCAL = {"HF_ENDPOINT": "http://127.0.0.1:9000"}


@pytest.mark.parametrize(
    ("url", "env", "there"),
    [
        pytest.param(f"{HUB}/a/b", {}, f"{HUB}/a/b", id="the Hub"),
        pytest.param(f"{HUB}/a/b", {"HF_ENDPOINT": ""}, f"{HUB}/a/b", id="an endpoint of nothing"),
        pytest.param(f"{HUB}/a/b?x=1", LOCAL, "http://127.0.0.1:9000/a/b?x=1", id="a mirror of the company"),
        pytest.param(f"{HUB}/a/b", CORP, "https://hub.corp.example/hf/a/b", id="in a folder of a host"),
        pytest.param(f"{HUB}/a", {"HF_ENDPOINT": "https://m.example//"}, "https://m.example/a", id="slashes"),
        pytest.param("https://example.org/a", CORP, "https://example.org/a", id="another host"),
        pytest.param(
            "https://huggingface.co.evil.example/a",
            CORP,
            "https://huggingface.co.evil.example/a",
            id="a host that begins like it",
        ),
        pytest.param("https://huggingface.company/a", CORP, "https://huggingface.company/a", id="or so"),
        pytest.param("https://huggingface.co:8443/a", CORP, "https://huggingface.co:8443/a", id="a port"),
        pytest.param("https://cdn.huggingface.co/a", CORP, "https://cdn.huggingface.co/a", id="below it"),
        pytest.param("/srv/huggingface.co/a", CORP, "/srv/huggingface.co/a", id="a path"),
    ],
)
def test_at_endpoint(url: str, env: Mapping[str, str], there: str) -> None:
    """Issue 3: HF_ENDPOINT is honoured, for the Hub's own URLs alone."""
    assert huggingface.rewrite_to_endpoint(url, env) == there


@pytest.mark.parametrize(
    ("env", "variable"),
    [
        pytest.param({}, "", id="nothing said"),
        pytest.param({"LLAMAFILE_OFFLINE": "1"}, "LLAMAFILE_OFFLINE", id="ours"),
        pytest.param({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE", id="the Hub's"),
        pytest.param({"LLAMAFILE_OFFLINE": "on", "HF_HUB_OFFLINE": "1"}, "LLAMAFILE_OFFLINE", id="both"),
        pytest.param({"HF_HUB_OFFLINE": "YES"}, "HF_HUB_OFFLINE", id="a word of the Hub's client"),
        pytest.param({"HF_HUB_OFFLINE": " True "}, "HF_HUB_OFFLINE", id="another"),
        pytest.param({"LLAMAFILE_OFFLINE": "0", "HF_HUB_OFFLINE": "false"}, "", id="no, twice"),
        pytest.param({"LLAMAFILE_OFFLINE": ""}, "", id="empty"),
        pytest.param({"TRANSFORMERS_OFFLINE": "1"}, "", id="another program's"),
    ],
)
def test_offline(env: Mapping[str, str], variable: str) -> None:
    """Issue 5.4: which variable forbids the network, for the message."""
    assert huggingface.offline(env) == variable


def test_places_of_what_nothing_pinned_yet(tmp_path: Path) -> None:
    """Issue 5.1: what came before it was locked lies under its URL's digest; no other file is meant."""
    models = tmp_path / "cache [1]" / "models"
    unpinned = Path(model_dir(str(models.parent), None, "https://e.org/m [x].gguf")) / "m [x].gguf"
    for path in (unpinned, models / "0123456789abcdef" / "m [x].gguf", models / "url-1" / "other.gguf"):
        path.parent.mkdir(parents=True)
        path.touch()
    patterns = huggingface.unpinned_globs(str(models), "m [x].gguf")
    assert [Path(found) for one in patterns for found in glob.glob(one)] == [unpinned]


def test_places_of_programs(tmp_path: Path) -> None:
    """Issue 11: engines of an older version lie beside the folders; unpinned ones in one of them."""
    engines = tmp_path / "engines"
    unpinned = Path(engine_dir(str(tmp_path), None, "https://e.org/e")) / "llamafile-0.10.5"
    older, other = engines / "llamafile-0.10.5", engines / A64[:16] / "llamafile-0.10.5"
    for path in (unpinned, older, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    patterns = huggingface.unpinned_globs(str(engines), "llamafile-0.10.5")
    assert [Path(found) for one in patterns for found in glob.glob(one)] == [unpinned, older]


@pytest.mark.parametrize(
    ("url", "env", "may"),
    [
        pytest.param(f"{HUB}/a/b", {}, True, id="the Hub"),
        pytest.param(f"{HUB}/a/b?download=true", {}, True, id="with a query"),
        pytest.param("http://huggingface.co/a", {}, False, id="the Hub in the clear"),
        pytest.param("https://huggingface.co:8443/a", {}, False, id="another port"),
        pytest.param("https://cdn-lfs.huggingface.co/a", {}, False, id="a host below it"),
        pytest.param("https://us.aws.cdn.hf.co/a", {}, False, id="where the Hub sends us"),
        pytest.param("https://evilhuggingface.co/a", {}, False, id="a host that ends like it"),
        pytest.param("https://huggingface.co.evil.example/a", {}, False, id="a host that begins like it"),
        pytest.param("https://huggingface.co@evil.example/a", {}, False, id="a user called so"),
        pytest.param("https://huggingface.co:x@evil.example/a", {}, False, id="with a password"),
        pytest.param("https://huggingface.co%2f@evil.example/a", {}, False, id="with a slash in it"),
        pytest.param("https://huggingface.co\\@evil.example/a", {}, False, id="or a backslash"),
        pytest.param("https://evil.example/https://huggingface.co/a", {}, False, id="a path called so"),
        pytest.param("https://evil.example/?a=https://huggingface.co/", {}, False, id="a query"),
        pytest.param("https://evil.example#@huggingface.co/a", {}, False, id="a fragment"),
        pytest.param("https://github.com/a", {}, False, id="another host"),
        pytest.param("file:///huggingface.co/a", {}, False, id="a file"),
        pytest.param("/huggingface.co/a", {}, False, id="a path"),
        pytest.param("", {}, False, id="nothing"),
        # the token is the endpoint's
        pytest.param("https://hub.corp.example/hf/a", CORP, True, id="the company's"),
        pytest.param(f"{HUB}/a", CORP, False, id="the Hub, where the company's is meant"),
        pytest.param("https://hub.corp.example:8443/hf/a", CORP, False, id="the company's, another port"),
        pytest.param("http://hub.corp.example/hf/a", CORP, False, id="the company's in the clear"),
        pytest.param("https://corp.example/hf/a", CORP, False, id="the company's, another host"),
        pytest.param(
            "http://hub.corp.example/a",
            {"HF_ENDPOINT": "http://hub.corp.example"},
            False,
            id="an endpoint in the clear",
        ),
        pytest.param(
            "https://hub.corp.example/a",
            {"HF_ENDPOINT": "http://hub.corp.example"},
            False,
            id="the same host, not in the clear",
        ),
        # loopback never leaves the machine
        pytest.param("http://127.0.0.1:9000/a", LOCAL, True, id="this machine"),
        pytest.param("http://127.0.0.1:9001/a", LOCAL, False, id="this machine, another port"),
        pytest.param("http://127.0.0.1/a", LOCAL, False, id="this machine, no port"),
        pytest.param("http://localhost:9000/a", LOCAL, False, id="this machine by another name"),
        pytest.param(
            "http://localhost:9000/a", {"HF_ENDPOINT": "http://localhost:9000/"}, True, id="by name"
        ),
        pytest.param("http://[::1]:9000/a", {"HF_ENDPOINT": "http://[::1]:9000"}, True, id="IPv6"),
        pytest.param(
            "http://127.0.0.1.evil.example/a",
            {"HF_ENDPOINT": "http://127.0.0.1.evil.example"},
            False,
            id="a host that begins like this machine",
        ),
        # what a hand may leave in the environment
        pytest.param(f"{HUB}/a", {"HF_ENDPOINT": ""}, True, id="an endpoint of nothing"),
        pytest.param(f"{HUB}/a", {"HF_ENDPOINT": "huggingface.co"}, False, id="an endpoint without https"),
        pytest.param("huggingface.co/a", {"HF_ENDPOINT": "huggingface.co"}, False, id="and the URL it gives"),
        pytest.param(f"{HUB}/a", {"HF_ENDPOINT": "https://[::1"}, False, id="an endpoint that is no URL"),
        pytest.param("https://[::1/a", {}, False, id="a URL that is none"),
    ],
)
def test_takes_token(url: str, env: Mapping[str, str], may: bool) -> None:
    """Issue 3: tokens go to their own host only, and not in the clear."""
    assert huggingface.may_send_token(url, env) is may


_URLS = st.text() | st.lists(
    st.sampled_from(["https://", "http://", "huggingface.co", "@", "[", "]", ":", "80", "/", "\\", "?", "#"]),
    max_size=6,
).map("".join)


@given(_URLS, _URLS)
def test_no_token_for_whatever_is_written(url: str, endpoint: str) -> None:
    """Never an exception; the token goes nowhere but to the endpoint's host and port."""
    env = {"HF_ENDPOINT": endpoint}
    huggingface.rewrite_to_endpoint(url, env)
    if huggingface.may_send_token(url, env):
        there = huggingface.endpoint(env).lower().partition("//")[2]
        assert url.lower().partition("//")[2].startswith(re.split(r"[/?#]", there)[0])


@pytest.mark.parametrize(
    ("env", "saved", "token"),
    [
        pytest.param({}, "", "", id="none"),
        pytest.param({"HF_TOKEN": "hf_a"}, "hf_s", "hf_a", id="of the environment"),
        pytest.param({"HUGGING_FACE_HUB_TOKEN": "hf_b"}, "hf_s", "hf_b", id="by its older name"),
        pytest.param({"HF_TOKEN": "hf_a", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "", "hf_a", id="HF_TOKEN first"),
        pytest.param({"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "hf_b"}, "", "hf_b", id="HF_TOKEN is empty"),
        pytest.param({}, "hf_s", "hf_s", id="the saved one"),
        pytest.param({"HF_TOKEN": ""}, "hf_s", "hf_s", id="the saved one, HF_TOKEN is empty"),
        pytest.param({"HF_TOKEN": " \n"}, "hf_s", "hf_s", id="the saved one, HF_TOKEN is blank"),
        # what `echo` and editors leave behind it: hub's _clean_token
        pytest.param({}, "hf_s\n", "hf_s", id="a file that ends in a newline"),
        pytest.param({}, " hf_s \r\n", "hf_s", id="a file of Windows"),
        pytest.param({"HF_TOKEN": "hf_a\n"}, "", "hf_a", id="a variable that ends in a newline"),
        # in a header they would begin another one
        pytest.param({"HF_TOKEN": "hf_a\r\nX: y"}, "", "", id="a newline inside"),
        pytest.param({"HF_TOKEN": "hf_a\nX: y"}, "hf_s", "", id="the same, and a saved one"),
        pytest.param({"HF_TOKEN": "hf\0a"}, "", "", id="a zero"),
        pytest.param({"HF_TOKEN": "hf\x1ba"}, "", "", id="an escape"),
        pytest.param({"HF_TOKEN": "hf\x7fa"}, "", "", id="a delete"),
        pytest.param({"HF_TOKEN": "hf_ä"}, "", "", id="a letter that no header takes"),
        pytest.param({}, "hf_“s”", "", id="quotes of a word processor"),
        # hub's constants.py: 1, ON, YES, TRUE in any case
        *(
            pytest.param({"HF_HUB_DISABLE_IMPLICIT_TOKEN": word}, "hf_s", "", id=f"not sent unasked: {word}")
            for word in ("1", "ON", "on", "yes", "True", "TRUE")
        ),
        *(
            pytest.param({"HF_HUB_DISABLE_IMPLICIT_TOKEN": word}, "hf_s", "hf_s", id=f"sent: {word!r}")
            for word in ("", "0", "no", "off", "false", "2")
        ),
        # hub's utils/_headers.py, get_token_to_send: then a token of the environment is not sent either
        pytest.param(
            {"HF_TOKEN": "hf_a", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
            "hf_s",
            "",
            id="not sent unasked: of the environment",
        ),
    ],
)
def test_token(env: Mapping[str, str], saved: str, token: str) -> None:
    """Issue 3: HF_TOKEN, then the Hub's token file; never a token unfit for a header."""
    assert huggingface.token(env, saved) == token


@given(st.text(), st.text())
def test_no_token_breaks_a_header(given_: str, saved: str) -> None:
    """RFC 9110 §5.5: one line of visible characters, whatever is written where a token should be."""
    token = huggingface.token({"HF_TOKEN": given_}, saved)
    assert all(" " <= c <= "~" for c in token)
    assert token == token.strip()


@pytest.mark.parametrize(
    ("env", "path"),
    [
        pytest.param({}, "/home/me/.cache/huggingface/token", id="by default"),
        pytest.param({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/token", id="XDG_CACHE_HOME"),
        pytest.param({"XDG_CACHE_HOME": ""}, "/home/me/.cache/huggingface/token", id="an empty one"),
        pytest.param({"HF_HOME": "/hf"}, "/hf/token", id="HF_HOME"),
        pytest.param({"HF_HOME": "/hf", "XDG_CACHE_HOME": "/x"}, "/hf/token", id="HF_HOME first"),
        pytest.param({"HF_TOKEN_PATH": "/t", "HF_HOME": "/hf"}, "/t", id="HF_TOKEN_PATH before all"),
        # hub's constants.py: expandvars(expanduser(…)); a .env file or systemd has no shell to do it
        pytest.param({"HF_HOME": "~/hf"}, "/home/me/hf/token", id="HF_HOME with ~"),
        pytest.param(
            {"HF_HOME": "$S/hf", "S": "/scratch"}, "/scratch/hf/token", id="HF_HOME with a variable"
        ),
        pytest.param({"HF_TOKEN_PATH": "~/t"}, "/home/me/t", id="HF_TOKEN_PATH with ~"),
    ],
)
def test_token_path(env: Mapping[str, str], path: str) -> None:
    """Where `hf auth login` leaves the token (huggingface_hub constants.py)."""
    assert huggingface.token_path(env, HOME) == path


OLLAMA = f"/home/me/.ollama/models/blobs/sha256-{A64}"
OLLAMA_SERVICE = f"/usr/share/ollama/.ollama/models/blobs/sha256-{A64}"
HUB_CACHE = f"/home/me/.cache/huggingface/hub/models--*/blobs/{A64}"


def places(env: Mapping[str, str], *folders: str, home: str = HOME, name: str = "m.gguf") -> list[str]:
    return huggingface.cache_globs(A64, name, folders, env, home)


@pytest.mark.parametrize(
    ("env", "found"),
    [
        pytest.param({}, [HUB_CACHE, OLLAMA, OLLAMA_SERVICE], id="by default"),
        pytest.param(
            {"XDG_CACHE_HOME": "/x"},
            [f"/x/huggingface/hub/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="XDG_CACHE_HOME",
        ),
        pytest.param(
            {"HF_HOME": "/hf/", "XDG_CACHE_HOME": "/x"},
            [f"/hf//hub/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HF_HOME",
        ),
        pytest.param(
            {"HF_HUB_CACHE": "/c/", "HUGGINGFACE_HUB_CACHE": "/d", "HF_HOME": "/hf"},
            [f"/c/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HF_HUB_CACHE",
        ),
        pytest.param(
            {"HUGGINGFACE_HUB_CACHE": "/d", "HF_HOME": "/hf"},
            [f"/d/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HUGGINGFACE_HUB_CACHE",
        ),
        pytest.param(
            {"OLLAMA_MODELS": "/o"}, [HUB_CACHE, f"/o/blobs/sha256-{A64}", OLLAMA_SERVICE], id="OLLAMA_MODELS"
        ),
        pytest.param(
            {"HF_HOME": "/a*[b]?"},
            [f"/a[*][[]b][?]/hub/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="glob's signs",
        ),
        # hub's constants.py: expandvars(expanduser(…))
        pytest.param(
            {"HF_HOME": "~/hf"},
            [f"/home/me/hf/hub/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HF_HOME with ~",
        ),
        pytest.param(
            {"HF_HUB_CACHE": "~/c"},
            [f"/home/me/c/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HF_HUB_CACHE with ~",
        ),
        pytest.param(
            {"HF_HUB_CACHE": "$S/c", "S": "/scratch"},
            [f"/scratch/c/models--*/blobs/{A64}", OLLAMA, OLLAMA_SERVICE],
            id="HF_HUB_CACHE with a variable",
        ),
    ],
)
def test_places_of_other_programs(env: Mapping[str, str], found: list[str]) -> None:
    """Issue 3: the Hub's cache and Ollama's, where their own variables say they are."""
    assert places(env) == found


@pytest.mark.parametrize(
    ("folder", "home", "seen"),
    [
        pytest.param("/mnt/m", HOME, "/mnt/m", id="absolute"),
        pytest.param("/mnt/m/", HOME, "/mnt/m", id="with a slash behind"),
        pytest.param("~/m", HOME, "/home/me/m", id="the user's"),
        pytest.param("~", HOME, "/home/me", id="the user's home"),
        pytest.param("/mnt/~x", HOME, "/mnt/~x", id="a ~ inside"),
        pytest.param("/mnt/a*[b]?", HOME, "/mnt/a[*][[]b][?]", id="glob's signs"),
        pytest.param("~/m", "/home/[me]", "/home/[[]me]/m", id="glob's signs in the home"),
        pytest.param(r"C:\models", r"C:\Users\me", r"C:\models", id="on Windows"),
        pytest.param(r"~\m", r"C:\Users\me", r"C:\Users\me\m", id="the user's on Windows"),
        pytest.param(r"\\srv\share", r"C:\Users\me", r"\\srv\share", id="a share"),
    ],
)
def test_places_of_a_folder(folder: str, home: str, seen: str) -> None:
    """Issue 3: another place named in models.yaml, however it is laid out; after those of other programs."""
    found = [p for p in places({}, folder, home=home)[3:] if "/engines/" not in p]
    assert found == [
        f"{seen}/m.gguf",
        f"{seen}/models/{A64[:16]}/m.gguf",
        f"{seen}/models--*/blobs/{A64}",
        f"{seen}/blobs/sha256-{A64}",
    ]


def test_places_of_folders() -> None:
    """In the order in which they are named; a file's own name may have glob's signs."""
    found = places({}, "/a", "/b", name="m[1].gguf")
    assert [p for p in found if p.count("/") == 2] == ["/a/m[[]1].gguf", "/b/m[[]1].gguf"]


def test_another_users_folder() -> None:
    """`~other` is not the user's home with a word behind it."""
    assert not [p for p in places({}, "~other/m") if p.startswith("/home/meother")]


def test_another_cache_of_this_recipe() -> None:
    """adopt_from names one: its models and its engines are where this recipe puts them."""
    model = model_dir("/cache", A64, "https://example.org/m.gguf") + "/m.gguf"
    assert model in places({}, "/cache")
    engine = engine_filename("0.10.5", "linux")
    found = places({}, "/cache", name=engine)
    assert f"{engine_dir('/cache', A64, 'https://example.org/e')}/{engine}" in found
    assert f"/cache/engines/{engine}" in found  # of an older version


@pytest.mark.parametrize(
    ("folder", "inside", "name"),
    [
        pytest.param("plain", "m.gguf", "m.gguf", id="a plain file"),
        pytest.param("we[i]rd * n?me", "m.gguf", "m.gguf", id="a folder with glob's signs"),
        pytest.param("plain", "m[1] (2).gguf", "m[1] (2).gguf", id="a file with glob's signs"),
        pytest.param("plain", f"models--a--b/blobs/{A64}", "m.gguf", id="the Hub's layout"),
        pytest.param("plain", f"blobs/sha256-{A64}", "m.gguf", id="Ollama's layout"),
        pytest.param("plain", f"models/{A64[:16]}/m.gguf", "m.gguf", id="this recipe's layout"),
    ],
)
def test_places_find_the_file(tmp_path: Path, folder: str, inside: str, name: str) -> None:
    """The patterns are glob's: exactly the one file is found."""
    file = tmp_path / folder / inside
    file.parent.mkdir(parents=True)
    file.touch()
    (tmp_path / "we[i]rd x name").mkdir()
    (tmp_path / "we[i]rd x name" / "m.gguf").touch()
    found = huggingface.cache_globs(A64, name, [str(tmp_path / folder)], {}, str(tmp_path))
    assert [p for pattern in found for p in glob.glob(pattern)] == [str(file)]
