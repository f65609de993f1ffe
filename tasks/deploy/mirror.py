"""mirror.conf: a cache of the Hub for the machines of one network. Pure.

Each slice of a file is fetched once, however many clients want it, and also if all of
them come at once. Only what a commit names is kept: a branch may move. What is kept is
for everyone, so no token is passed on: a gated model answers 401.

The inner server follows the Hub's redirect to its CDN anew for each slice, since the
address has a signature that expires. It listens on TCP: a socket file survives a crash
and blocks the next start.

nginx starts without DNS, and asks it again for the Hub's address, which changes.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from tasks.deploy.escape import Template
from tasks.deploy.fleet import HEADER, Files, Fleet
from tasks.network.huggingface import HUB


class Place(NamedTuple):
    """Where the mirror is on its machine, and what it is a mirror of."""

    upstream: str = HUB
    directory: str = "/var/cache/nginx/llamafile-recipe"
    inner_port: int = 18089
    slice: str = "16m"
    certificates: str = "/etc/ssl/certs/ca-certificates.crt"


_TEXT = Template("""\
# @header
#
# For the directory conf.d of nginx, on the machine @host.
proxy_cache_path @directory levels=1:2 keys_zone=llamafile_recipe:16m max_size=@{size}g inactive=365d use_temp_path=off;
map $uri $llamafile_moving {
  default 1;
  "~^/[^/]+/[^/]+/resolve/[0-9a-f]{40}/" 0;
}
map $upstream_http_location $llamafile_target {
  default $upstream_http_location;
  "~^/" "@upstream$upstream_http_location";
}

server {
  listen @port;
  resolver @resolver;
  # a variable: its name is resolved again when its address expires, not once at start
  set $hub @upstream;
  location ~ ^/[^/]+/[^/]+/resolve/ {
    slice @slice;
    proxy_pass http://127.0.0.1:@inner;
    proxy_http_version 1.1;
    proxy_set_header Range $slice_range;
    proxy_set_header Authorization "";
    proxy_cache llamafile_recipe;
    proxy_cache_key "$uri $slice_range";
    proxy_no_cache $llamafile_moving;
    proxy_cache_bypass $llamafile_moving;
    proxy_cache_valid 200 206 365d;
    proxy_ignore_headers Cache-Control Expires Vary Set-Cookie X-Accel-Expires;
    proxy_cache_lock on;
    # with the default of 5 s, every client of a slow upstream fetches for itself
    proxy_cache_lock_timeout 1h;
    proxy_cache_lock_age 10m;
    proxy_cache_use_stale error timeout http_500 http_502 http_503 http_504 http_429;
    proxy_next_upstream off;
    proxy_read_timeout 300s;
    add_header X-Cache-Status $upstream_cache_status always;
  }
  location / {
    proxy_pass $hub;
    proxy_redirect @upstream/ /;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_verify_depth 4;
    proxy_ssl_trusted_certificate @certificates;
  }
}

server {
  listen 127.0.0.1:@inner;
  resolver @resolver;
  set $hub @upstream;
  access_log off;
  proxy_max_temp_file_size 0;
  proxy_ssl_server_name on;
  proxy_ssl_verify on;
  proxy_ssl_verify_depth 4;
  proxy_ssl_trusted_certificate @certificates;
  location / {
    proxy_pass $hub;
    proxy_set_header Range $http_range;
    proxy_intercept_errors on;
    error_page 301 302 303 307 308 = @@cdn;
  }
  location @@cdn {
    set $cdn $llamafile_target;
    set $commit $upstream_http_x_repo_commit;
    set $etag $upstream_http_x_linked_etag;
    set $size $upstream_http_x_linked_size;
    proxy_pass $cdn;
    proxy_set_header Range $http_range;
    proxy_set_header Authorization "";
    add_header X-Repo-Commit $commit;
    add_header X-Linked-Etag $etag;
    add_header X-Linked-Size $size;
  }
}
""")  # noqa: E501  # lines of the engine's own format


def files(fleet: Fleet, place: Place | None = None) -> Files:
    """Return the configuration; it depends on no model.

    Args:
        place: for tests; None: as on the mirror's machine.
    """
    mirror = fleet.options.mirror
    if mirror is None:
        return {}
    where = place or Place()
    address = urlsplit(mirror.url)
    text = _TEXT.substitute(
        header=HEADER,
        host=address.hostname,
        port=address.port or 80,
        resolver=mirror.resolver,
        size=mirror.size,
        upstream=where.upstream,
        directory=where.directory,
        inner=where.inner_port,
        slice=where.slice,
        certificates=where.certificates,
    )
    return {"mirror.conf": text}
