#!/usr/bin/env bash
# Run the image of image.sh in podman as docs/fleet.md does, and stop it during an answer: container.sh WORK
# Needs root, podman, runc and curl. Everything is in private namespaces, and ends with them. About 30 s.
set -euo pipefail
script=$(realpath "$0")
work=$(cd "$1" && pwd)
if [ "${2:-}" != inside ]; then
  exec timeout 300 unshare -mnpf --propagation private --mount-proc bash "$script" "$work" inside
fi
. "$(dirname "$script")/settings.sh"
ip link set lo up
mkdir -p /run/fleet
mount -t tmpfs tmpfs /run/fleet
rm -rf "$work/run"
podman() {
  command podman --root "$work/run" --runroot /run/fleet/rr --tmpdir /run/fleet/tmp \
    --network-config-dir /run/fleet/net --storage-opt "overlay.imagestore=$work/store" "$@"
}
image=localhost/llamafile-recipe:dev
safe=(--read-only --cap-drop=all --security-opt=no-new-privileges --tmpfs /tmp)

podman volume create cache
podman run --rm "${safe[@]}" --network=none -v cache:/cache $image verify --model demo --frozen --yes
podman run -d --name server "${safe[@]}" --network=host -v cache:/cache:ro -e LLAMAFILE_OFFLINE=1 \
  $image serve --model demo --frozen --yes --host 0.0.0.0 --port 8080 --drain 60
until curl -fs -o /dev/null http://127.0.0.1:8080/health; do sleep 0.1; done
podman exec server sh -c 'id; grep -E "Cap(Eff|Bnd)|NoNewPrivs" /proc/1/status'
podman exec server sh -c 'touch /x || touch /cache/x' && { echo "it could write"; exit 1; }
podman exec server /opt/llamafile-recipe/.venv/bin/doit idle --model demo --timeout 5
story 8080 >/run/fleet/stream &
until grep -q data: /run/fleet/stream; do sleep 0.1; done
podman stop -t 70 server
wait $!
grep -qF 'data: [DONE]' /run/fleet/stream && echo "the answer was finished"
[ "$(podman inspect server --format '{{.State.ExitCode}}')" = 0 ] && echo "status 0"
