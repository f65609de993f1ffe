#!/usr/bin/env bash
# Run deploy/compose.yaml with a real Docker and Docker Compose, and stop it during an answer: compose.sh WORK
# Needs root, apt, podman, runc, curl, iproute2, and the image of image.sh in the same WORK. Everything is in private
# namespaces, and ends with them. Packages of 80 MB, then 4 minutes on two busy processors, most of it the copy of the
# image: `up --wait` of three replicas 43 to 70 s, again 4 s, a stop during an answer 10 to 38 s, with the answer whole.
# Passed with Docker Compose 2.40.3 and Docker 28.5.2, storage drivers vfs and overlay2.
set -euo pipefail
script=$(realpath "$0")
work=$(cd "$1" && pwd)
. "$(dirname "$script")/docker.sh"
if [ "${2:-}" != inside ]; then
  get_docker
  exec timeout 400 unshare -mnpf --propagation private --mount-proc bash "$script" "$work" inside
fi
. "$(dirname "$script")/settings.sh"
[ -f "$work/image.tar" ] || podman --root "$work/store" --runroot "$work/runroot" save -q -o "$work/image.tar" \
  localhost/llamafile-recipe:dev
rm -rf "$work/docker-data"
start_docker
docker load -q -i "$work/image.tar"

compose() { docker compose --progress plain -f "$work/clone/deploy/compose.yaml" "$@"; }
time compose up -d --wait 2>&1
compose ps -a --format '{{.Name}} {{.State}} {{.Health}} {{.ExitCode}}'
for port in 8080 8081 8082; do
  curl -fsS "http://127.0.0.1:$port/health" && echo " on $port"
done
server=$(compose ps -q demo | head -1)
docker exec "$server" sh -c 'id; grep -E "Cap(Eff|Bnd)|NoNewPrivs" /proc/1/status'
docker exec "$server" sh -c 'touch /x || touch /cache/x' && { echo "it could write"; exit 1; }
time compose up -d --wait 2>&1 | grep -c Running # again: nothing is restarted
story 8080 >"$work/stream" &
until grep -q data: "$work/stream"; do sleep 0.1; done
time compose stop 2>&1
wait $!
grep -qF 'data: [DONE]' "$work/stream" && echo "the answer was finished"
compose ps -a --format '{{.Name}} {{.State}} {{.ExitCode}}'
compose down -v
