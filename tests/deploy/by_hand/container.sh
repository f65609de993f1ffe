#!/usr/bin/env bash
# Run the image of image.sh in podman as docs/fleet.md does, and stop it during an answer: container.sh WORK [rootless]
# Needs root, podman, runc and curl; rootless: uidmap, and root only to make the user. Everything is in private
# namespaces, and ends with them. About 30 s.
set -euo pipefail
script=$(realpath "$0")
work=$(cd "$1" && pwd)
mode=${2:-root}
own=/run/fleet/own # of the user that runs podman
[ "$mode" = user ] || . "$(dirname "$script")/settings.sh"

serve() { # in podman, with the options "$@"
  podman() { command podman --runroot $own/run --tmpdir $own/tmp --network-config-dir $own/net "${options[@]}" "$@"; }
  options=("$@")
  image=localhost/llamafile-recipe:dev
  safe=(--read-only --cap-drop=all --security-opt=no-new-privileges --tmpfs /tmp)
  podman image exists $image || podman load -q -i "$work/image.tar"
  podman info --format 'rootless: {{.Host.Security.Rootless}}'
  podman volume create cache
  podman run --rm "${safe[@]}" --network="$offline" -v cache:/cache $image verify --model demo --frozen --yes
  podman run -d --name server "${safe[@]}" --network=host -v cache:/cache:ro -e LLAMAFILE_OFFLINE=1 \
    $image serve --model demo --frozen --yes --host 0.0.0.0 --port 8080 --drain 60
  until curl -fs -o $own/health http://127.0.0.1:8080/health; do sleep 0.1; done
  podman exec server sh -c 'id; grep -E "Cap(Eff|Bnd)|NoNewPrivs" /proc/1/status'
  podman exec server sh -c 'touch /x || touch /cache/x' && { echo "it could write"; exit 1; }
  podman exec server /opt/llamafile-recipe/.venv/bin/doit idle --model demo --timeout 5
  story 8080 >$own/stream &
  until grep -q data: $own/stream; do sleep 0.1; done
  podman stop -t 70 server
  wait $!
  grep -qF 'data: [DONE]' $own/stream && echo "the answer was finished"
  [ "$(podman inspect server --format '{{.State.ExitCode}}')" = 0 ] && echo "status 0"
}

become() { # a user whom nothing on this machine knows, with 65,536 identifiers for its containers
  mkdir /run/fleet/etc
  for file in passwd group; do
    cp /etc/$file /run/fleet/etc
    echo "runner:x:2000:$([ $file = passwd ] && echo "2000::$own:/bin/sh")" >>/run/fleet/etc/$file
  done
  for file in subuid subgid; do echo 'runner:100000:65536' >/run/fleet/etc/$file; done
  for file in passwd group subuid subgid; do mount --bind /run/fleet/etc/$file /etc/$file; done
  rm -rf "$work/rootless"
  install -d -o 2000 -g 2000 "$work/rootless"
  cd /
  export -f story
  HOME=$own XDG_RUNTIME_DIR=$own exec setpriv --reuid 2000 --regid 2000 --clear-groups \
    bash "$script" "$work" user
}

case $mode in
  root | rootless)
    exec timeout 300 unshare -mnpf --kill-child --propagation private --mount-proc bash "$script" "$work" "in-$mode"
    ;;
  user)
    offline=host # which has no network here, but lo: another one needs slirp4netns
    serve --root "$work/rootless"
    exit
    ;;
esac
ip link set lo up
mkdir -p /run/fleet
mount -t tmpfs tmpfs /run/fleet
install -d -o 2000 -g 2000 $own
[ "$mode" = in-rootless ] && become
rm -rf "$work/run"
offline=none
serve --root "$work/run" --storage-opt "overlay.imagestore=$work/store"
