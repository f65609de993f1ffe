# Sourced by provider.sh and compose.sh: a Docker and a Compose of Debian's next release, unpacked into $work/docker.
# They run on Debian 12, with the runc of Debian 12. Nothing is installed; apt's own state is not touched.
get_docker() {
  local to="$work/docker" mirror
  [ -x "$to/usr/sbin/dockerd" ] && return
  mkdir -p "$to/lists/partial" "$to/cache/archives/partial" "$to/debs"
  mirror=$(grep -hv '^ *#' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
    grep -oE 'https?://[^ ]+/debian/?( |$)' | head -1 || true)
  echo "deb [trusted=yes] $mirror sid main" >"$to/sources.list"
  local options=(-qq -oDir::etc::sourcelist="$to/sources.list" -oDir::etc::sourceparts=- -oDir::State::Lists="$to/lists"
    -oDir::Cache="$to/cache" -oAPT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$to/debs" && apt-get "${options[@]}" download docker.io docker-cli docker-compose containerd tini-static)
  local deb
  for deb in "$to"/debs/*.deb; do dpkg -x "$deb" "$to"; done
}
start_docker() { # in namespaces of its own; needs /run to be private
  ip link set lo up
  mount -t tmpfs tmpfs /run
  export PATH="$work/docker/usr/bin:$work/docker/usr/sbin:$PATH" DOCKER_HOST=unix:///run/docker.sock HOME=/run/home
  export DOCKER_CONFIG=/run/docker-config
  mkdir -p "$HOME" "$DOCKER_CONFIG/cli-plugins"
  ln -s "$work/docker/usr/libexec/docker/cli-plugins/docker-compose" "$DOCKER_CONFIG/cli-plugins/"
  # NAT needs iptables; containers and this machine reach each other without it
  dockerd --data-root "$work/docker-data" --exec-root /run/docker -H "$DOCKER_HOST" --pidfile /run/docker.pid \
    --iptables=false --ip6tables=false --storage-driver overlay2 --default-ulimit nofile=16384 >"$work/dockerd.log" 2>&1 &
  until docker version >/dev/null 2>&1; do
    kill -0 $! || { tail -5 "$work/dockerd.log"; exit 1; }
    sleep 0.1
  done
  docker version --format 'docker {{.Server.Version}}'
  docker compose version
}
