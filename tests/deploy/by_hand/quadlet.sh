#!/usr/bin/env bash
# Boot a systemd that runs the quadlets, and the pods of kubernetes.yaml, with podman 5: quadlet.sh WORK
# Needs root, debootstrap, systemd-nspawn, and the image of image.sh. About 4 minutes, then 40 s.
set -euo pipefail
script=$(realpath "$0")
if [ -d /imgstore ]; then # in the machine
  exec >/t/log 2>&1
  set -x
  work=/run
  . /t/settings.sh
  unset CONTAINERS_CONF
  mkdir -p /etc/containers/containers.conf.d /etc/containers/systemd
  printf '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]\npids_limit = 0\n' \
    >/etc/containers/containers.conf.d/test.conf
  printf '[storage]\ndriver = "overlay"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"
[storage.options]\nadditionalimagestores = ["/imgstore"]\n' >/etc/containers/storage.conf
  systemctl start dbus.socket
  cd /clone
  install -m 644 deploy/quadlet/* /etc/containers/systemd && systemctl daemon-reload
  systemctl start demo-8080
  curl -fsS http://127.0.0.1:8080/health # without a wait
  podman kill -s KILL systemd-demo-8080
  until [ "$(systemctl show -P NRestarts demo-8080)" = 1 ] && systemctl -q is-active demo-8080; do sleep 0.5; done
  curl -fsS http://127.0.0.1:8080/health
  story 8080 >/t/stream &
  until grep -q data: /t/stream; do sleep 0.1; done
  systemctl stop demo-8080
  wait $!
  grep -F 'data: [DONE]' /t/stream
  [ "$(systemctl show -P Result demo-8080)" = success ]
  # the pod of kubernetes.yaml; a request of memory needs a controller that this machine does not have
  install -d -o 1000 -g 1000 /srv/llamafile-recipe
  sed '/resources:/,/memory:/d' deploy/kubernetes.yaml >/run/pod.yaml
  podman kube play /run/pod.yaml
  until podman ps --format '{{.Names}} {{.Status}}' | grep -F '(healthy)'; do sleep 0.5; done
  podman exec demo-pod-server sh -c '! touch /cache/x'
  podman kube down /run/pod.yaml
  # the same with an image volume in place of the directory
  sed '/resources:/,/memory:/d' /mounted/deploy/kubernetes.yaml >/run/mounted.yaml
  podman load -q -i /mounted/demo.tar
  podman kube play /run/mounted.yaml
  until podman ps --format '{{.Names}} {{.Status}}' | grep -F '(healthy)'; do sleep 0.5; done
  podman exec demo-pod-server sh -c '! touch /mounted/x'
  podman kube down /run/mounted.yaml
  exit
fi
work=$(cd "$1" && pwd)
[ -d "$work/trixie" ] || debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,podman,crun,netavark,aardvark-dns,nftables,conmon,catatonit,iproute2,curl,procps \
  trixie "$work/trixie" >"$work/debootstrap.log"
rm -rf "$work/t" "$work/containers"
mkdir "$work/t" "$work/containers"
cp "$script" "$(dirname "$script")/settings.sh" "$work/t"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 300 systemd-nspawn -q -D "$work/trixie" --volatile=overlay --register=no \
  --keep-unit --private-network --capability=all --system-call-filter='add_key keyctl bpf' --bind="$work/t:/t" \
  --bind-ro="$work/clone:/clone" --bind-ro="$work/mounted:/mounted" --bind-ro="$work/store:/imgstore" --bind="$work/containers:/var/lib/containers" \
  -b systemd.run=/t/quadlet.sh systemd.run_success_action=exit systemd.run_failure_action=exit \
  </dev/null >"$work/console" && echo "ready, restarted after SIGKILL, the answer was finished; the pods were healthy" || { tail -30 "$work/t/log"; exit 1; }
