#!/usr/bin/env bash
# Apply kubernetes.yaml in a cluster of one node, and measure it: cluster.sh WORK
# Needs root, the image of image.sh, the environment of the tests, and of Debian 12: conntrack containerd
# containernetworking-plugins etcd-server iptables kubectl. To build Kubernetes 1.20 from Debian's source package,
# which is done once: dpkg-dev gcc golang-go libc6-dev make rsync. KUBERNETES=DIR has its programs already.
# On a busy machine, `SHARES=50000 cluster.sh WORK` runs before everything else: shares of the processors.
# Everything is in private namespaces, and ends with them. About 5 minutes to build, then 4.
set -euo pipefail
script=$(realpath "$0")
files=$(dirname "$script")/cluster
work=$(cd "$1" && pwd)
run=$work/cluster
group=/sys/fs/cgroup/cpu/llamafile-recipe-cluster # of the programs; the pods have their own
shares=${SHARES:-2048}
programs=${KUBERNETES:-$work/kubernetes/_output/local/go/bin}

build() {
  mkdir -p "$work/apt/parts" "$work/apt/lists/partial" "$work/apt/cache/archives/partial"
  sed 's/^Types: deb$/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$work/apt/parts/debian.sources"
  options=(-o Dir::Etc::sourcelist=- -o "Dir::Etc::sourceparts=$work/apt/parts" \
    -o "Dir::State::lists=$work/apt/lists" -o "Dir::Cache=$work/apt/cache")
  apt-get "${options[@]}" update -qq
  (cd "$work/apt" && apt-get "${options[@]}" source -qq --download-only kubernetes)
  rm -rf "$work/kubernetes"
  dpkg-source -x "$work"/apt/kubernetes_*.dsc "$work/kubernetes" >"$work/build.log"
  cd "$work/kubernetes"
  unset GOFLAGS
  export CGO_ENABLED=0 FORCE_HOST_GO=y HOME=/root KUBE_GIT_VERSION=v1.20.2 KUBE_GIT_COMMIT=0 \
    KUBE_GIT_TREE_STATE=archive KUBE_GIT_MAJOR=1 KUBE_GIT_MINOR=20
  make WHAT="cmd/kube-apiserver cmd/kube-controller-manager cmd/kube-scheduler cmd/kubelet cmd/kube-proxy" \
    >>"$work/build.log"
}

pause() { # the image that holds a pod's namespaces
  . "$(dirname "$script")/settings.sh"
  mkdir -p "$work/pause"
  printf '#include <signal.h>\n#include <unistd.h>\nstatic void end(int s) { _exit(0); }
int main() { signal(SIGTERM, end); signal(SIGINT, end); signal(SIGCHLD, SIG_IGN); for (;;) pause(); }\n' \
    >"$work/pause/pause.c"
  gcc -static -Os -s -o "$work/pause/pause" "$work/pause/pause.c"
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$work/pause/Containerfile"
  buildah --root "$work/store" --runroot "$work/runroot" build -q -t localhost/pause:1 "$work/pause" >"$work/pause/digest"
  podman --root "$work/store" --runroot "$work/runroot" save -q -o "$work/pause.tar" localhost/pause:1
}

if [ "${2:-}" != inside ]; then
  [ -x "$programs/kube-apiserver" ] || build
  [ -f "$work/pause.tar" ] || pause
  status=0
  mkdir -p $group
  echo "$shares" >$group/cpu.shares
  echo $$ >$group/cgroup.procs
  timeout "${LIMIT:-900}" unshare -mnpf --kill-child --propagation private --mount-proc \
    bash "$script" "$work" inside || status=$?
  echo $$ >/sys/fs/cgroup/cpu/cgroup.procs
  rmdir $group
  # the kubelet's groups are those of the machine
  find /sys/fs/cgroup/*/kubepods -depth -type d -exec rmdir {} + 2>"$work/cgroups.log" || true
  exit $status
fi

start() { # PROGRAM OPTION...: in the background, with its log
  "$@" >"$run/$(basename "$1").log" 2>&1 &
}

export PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH KUBECONFIG=$files/kubeconfig
rm -rf "$run"
mkdir -p "$run/kubelet" "$run/cni" /run/fleet /var/log/pods /var/log/containers
for folder in /run/fleet /var/log/pods /var/log/containers /srv; do mount -t tmpfs tmpfs $folder; done
mount --bind "$run/kubelet" "$run/kubelet" # on a real disk: the kubelet counts its bytes
mount --make-rshared "$run/kubelet"
cp "$files/bridge.conflist" "$run/cni"
for name in kubelet.yaml containerd.toml; do sed "s#@RUN@#$run#" "$files/$name" >"$run/$name"; done
echo 'nameserver 127.0.0.1' >"$run/resolv.conf"
echo 'tok,admin,1,system:masters' >"$run/tokens.csv"
openssl genrsa -out "$run/sa.key" 2048 2>"$run/openssl.log"
ip link set lo up
ip link add v0 type veth peer name v1 # an address and a default route, as a machine has
ip link set v1 up
ip addr add 172.31.255.2/24 dev v0
ip link set v0 up
ip route add default via 172.31.255.1 dev v0

etcd=http://127.0.0.1:12379
api=https://127.0.0.1:16443
start etcd --data-dir "$run/etcd" --listen-client-urls $etcd --advertise-client-urls $etcd \
  --listen-peer-urls http://127.0.0.1:12380
start "$programs/kube-apiserver" --etcd-servers=$etcd --service-cluster-ip-range=10.96.0.0/24 \
  --bind-address=127.0.0.1 --advertise-address=172.31.255.2 --secure-port=16443 --cert-dir="$run/certs" \
  --service-account-key-file="$run/sa.key" --service-account-signing-key-file="$run/sa.key" \
  --service-account-issuer=$api --authorization-mode=AlwaysAllow --token-auth-file="$run/tokens.csv" \
  --disable-admission-plugins=ServiceAccount --allow-privileged --kubelet-preferred-address-types=InternalIP
start containerd -c "$run/containerd.toml"
until curl -skf -H 'Authorization: Bearer tok' $api/readyz >"$run/readyz"; do sleep 0.3; done
start "$programs/kube-controller-manager" --kubeconfig="$KUBECONFIG" --leader-elect=false \
  --service-account-private-key-file="$run/sa.key" --cert-dir="$run/manager" --node-monitor-grace-period=60s
start "$programs/kube-scheduler" --kubeconfig="$KUBECONFIG" --leader-elect=false --cert-dir="$run/scheduler"
for image in pause image; do ctr -a /run/fleet/containerd.sock -n k8s.io images import "$work/$image.tar"; done
start "$programs/kubelet" --config="$run/kubelet.yaml" --kubeconfig="$KUBECONFIG" --container-runtime=remote \
  --container-runtime-endpoint=unix:///run/fleet/containerd.sock --hostname-override=node1 \
  --node-ip=172.31.255.2 --cert-dir="$run/node" --root-dir="$run/kubelet"
start "$programs/kube-proxy" --kubeconfig="$KUBECONFIG" --hostname-override=node1 --proxy-mode=iptables \
  --cluster-cidr=10.244.0.0/16 --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 \
  --conntrack-tcp-timeout-close-wait=0
until kubectl get nodes 2>&1 | grep -q ' Ready'; do sleep 0.5; done
echo "$shares" >/sys/fs/cgroup/cpu/kubepods/cpu.shares
cd "$work/clone"
. "${MEASURE:-$files/measure.sh}"
