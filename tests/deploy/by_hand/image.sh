#!/usr/bin/env bash
# Build the image of docs/fleet.md twice and compare the digests: image.sh WORK
# Needs root, debootstrap, buildah, podman, runc, skopeo, docker-registry, git, the environment of the tests, and pip of Python 3.11 for the
# wheels, which is that of Debian 12.
# WORK keeps the base, the wheels and the image for the other scripts. About 4 minutes.
set -euo pipefail
repository=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
. "$(dirname "$0")/settings.sh"

[ -d "$work/bookworm" ] || debootstrap --variant=minbase \
  --include=ca-certificates,python3,python3-venv,libgomp1 bookworm "$work/bookworm" >"$work/debootstrap.log"
rm -rf "$work/clone"
git clone -q "$repository" "$work/clone"
cd "$work/clone"
cat >>models.yaml <<'YAML'
deploy:
  models:
    demo: {replicas: 3, balance: 9000}
  image: localhost/llamafile-recipe:dev
  drain: 60
  node_cache: /srv/llamafile-recipe
YAML
python -m doit deploy
[ -d "$work/wheels" ] || python3.11 -m pip wheel -q --wheel-dir "$work/wheels" '.[embedded]'
cp -r "$work/wheels/." wheels

tar -C "$work/bookworm" -c . |
  podman --root "$work/store" --runroot "$work/runroot" import - localhost/base:bookworm >/dev/null
for turn in 1 2; do
  buildah --root "$work/store" --runroot "$work/runroot" build -q --no-cache --timestamp 0 --network=none \
    --build-arg BASE=localhost/base:bookworm -f deploy/Containerfile -t localhost/llamafile-recipe:dev . \
    >"$work/digest$turn"
done
cat "$work/digest1"
cmp "$work/digest1" "$work/digest2" && echo "built twice: the same digest"
rm -f "$work/image.tar"
podman --root "$work/store" --runroot "$work/runroot" save -q -o "$work/image.tar" localhost/llamafile-recipe:dev

# the image of the model, and the files of a fleet that mounts it
rm -rf "$work/mounted" "$work/cache"
mkdir "$work/mounted"
cp -r demo models.lock "$work/mounted"
sed -e '/node_cache/d' -e 's#{replicas: 3#&, model_image: "localhost/demo:1"#' models.yaml >"$work/mounted/models.yaml"
export LLAMAFILE_CATALOGUE="$work/mounted/models.yaml" LLAMAFILE_CACHE="$work/cache"
python -m doit deploy
python -m doit download demo
port=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >"$work/mounted/registry.yml" <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: $work/mounted/registry}}
http: {addr: "127.0.0.1:$port"}
YAML
docker-registry serve "$work/mounted/registry.yml" >"$work/mounted/registry.log" 2>&1 &
trap "kill $!" EXIT
curl -s --retry 50 --retry-connrefused --retry-delay 1 "http://127.0.0.1:$port/v2/" >"$work/mounted/answer"
python -m doit image demo "oci://127.0.0.1:$port/demo:1"
skopeo copy -q --src-tls-verify=false "docker://127.0.0.1:$port/demo:1" \
  "docker-archive:$work/mounted/demo.tar:localhost/demo:1"
