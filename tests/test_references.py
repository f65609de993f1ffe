"""References to files of registries: one row for each rule."""

from __future__ import annotations

import pytest
from tasks.references import file_url, parse_modelscope, parse_oci
from tasks.urls import filename_of, host_of, is_local, url_error

D = "sha256:" + "a" * 64
S = "b" * 64

# reference, host, API, what is requested, file name
OCI = [
    ("oci://localhost:50/m/demo:1", "localhost:50", "http://localhost:50/v2/m/demo", "1", "demo-1.gguf"),
    ("oci://127.0.0.1/demo:1", "127.0.0.1", "http://127.0.0.1/v2/demo", "1", "demo-1.gguf"),
    ("oci://[::1]:80/demo:1", "[::1]:80", "http://[::1]:80/v2/demo", "1", "demo-1.gguf"),
    ("oci://ghcr.io/o/a/b:v1/x.gguf", "ghcr.io", "https://ghcr.io/v2/o/a/b", "v1", "x.gguf"),
    ("oci://ghcr.io/o/m:v1/X.GGUF", "ghcr.io", "https://ghcr.io/v2/o/m", "v1", "X.GGUF"),
    (f"oci://ghcr.io/o/m@{D}", "ghcr.io", "https://ghcr.io/v2/o/m", D, "m-aaaaaaaaaaaa.gguf"),
    (f"oci://ghcr.io/o/m@{D}/x.llamafile", "ghcr.io", "https://ghcr.io/v2/o/m", D, "x.llamafile"),
    ("oci://docker.io/ai/m:1", "docker.io", "https://registry-1.docker.io/v2/ai/m", "1", "m-1.gguf"),
    ("oci://10.0.0.1:5000/m:1", "10.0.0.1:5000", "https://10.0.0.1:5000/v2/m", "1", "m-1.gguf"),
    ("ollama:llama3.2:1b", "registry.ollama.ai", "https://registry.ollama.ai/v2/library/llama3.2", "1b",
     "llama3.2-1b.gguf"),
    ("ollama:me/m", "registry.ollama.ai", "https://registry.ollama.ai/v2/me/m", "latest", "m-latest.gguf"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "host", "base", "version", "name"), OCI)
def test_references_to_manifests(text: str, host: str, base: str, version: str, name: str) -> None:
    found = parse_oci(text)
    assert found
    assert (found.host, found.base, found.version, filename_of(text)) == (host, base, version, name)
    assert parse_oci(str(found)) == found
    assert (url_error(text, pinned=False), host_of(text), is_local(text)) == ("", host, False)
    assert file_url(text, S, {}) == f"{base}/blobs/sha256:{S}"
    assert file_url(text, None, {}) == ""


# reference, what its error says
REFUSED = [
    ("oci://h/m", "expected oci://HOST/REPO:TAG"),  # no tag
    ("oci://h/M:1", "a repository is written in lower case"),
    ("oci://h/a//b:1", "expected oci://"),
    ("oci://h/../b:1", "expected oci://"),
    ("oci://h/a_-b:1", "expected oci://"),
    ("oci://h/m:a/b", "expected oci://"),  # a tag has no slash, a file ends in .gguf
    ("oci://h/m:1/a/b.gguf", "expected oci://"),
    ("oci://h/m:1/x.gguf?a=1", "expected oci://"),
    ("oci://h/m:1/..", "expected oci://"),
    (f"oci://h/m:{'t' * 129}", "expected oci://"),
    (f"oci://h/{'m' * 255}:1", "expected oci://"),
    (f"oci://h/m@{D}0", "expected oci://"),
    ("oci://h/m@sha512:00", "expected oci://"),
    ("oci:///m:1", "expected oci://"),
    ("oci://h:99999/m:1", "is not a URL"),
    ("oci://me:secret@h/m:1", "no user or password in a URL"),
    ("ollama:Llama:1", "expected ollama:NAME:TAG"),
    ("ollama:a/b/c:1", "expected ollama:NAME:TAG"),
    ("ollama:", "expected ollama:NAME:TAG"),
    ("ms:o/x.gguf", "expected ms:OWNER/REPO/FILE"),
    ("ms:o/r/../x.gguf", "expected ms:OWNER/REPO/FILE"),
    ("ms:../r/x.gguf", "expected ms:OWNER/REPO/FILE"),
    ("docker://h/m:1", "expected https://"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_malformed_references(text: str, expected: str) -> None:
    problem = url_error(text, pinned=True)
    assert expected in problem
    assert "secret" not in problem


# reference, MODELSCOPE_DOMAIN, URL
MODELSCOPE = [
    ("ms:o/r/x.gguf", "", "https://modelscope.cn/o/r/resolve/master/x.gguf"),
    ("ms:o/r@v1/a/x+y.gguf", "", "https://modelscope.cn/o/r/resolve/v1/a/x%2By.gguf"),
    ("ms:o/r/x.gguf", "www.modelscope.ai", "https://www.modelscope.ai/o/r/resolve/master/x.gguf"),
    ("ms:o/r/x.gguf", "127.0.0.1:80", "http://127.0.0.1:80/o/r/resolve/master/x.gguf"),
    ("ms:o/r/x.gguf", "evil/path", "https://modelscope.cn/o/r/resolve/master/x.gguf"),
]


@pytest.mark.parametrize(("text", "domain", "url"), MODELSCOPE)
def test_references_to_modelscope(text: str, domain: str, url: str) -> None:
    assert file_url(text, None, {"MODELSCOPE_DOMAIN": domain}) == url
    assert (url_error(text, pinned=False), host_of(text)) == ("", "modelscope.cn")
    assert parse_modelscope(text)
