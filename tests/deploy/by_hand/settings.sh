# What podman and buildah need in a machine without systemd, with a limit of open files.
cat >"$work/containers.conf" <<'CONF'
[containers]
default_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
CONF
export CONTAINERS_CONF="$work/containers.conf" BUILDAH_ISOLATION=oci BUILDAH_RUNTIME=runc
story() { # PORT: a long answer, streamed
  curl -sSN --max-time 200 "http://127.0.0.1:$1/v1/chat/completions" \
    -d '{"messages":[{"role":"user","content":"Tell me a story"}],"max_tokens":2000,"ignore_eos":true,"stream":true}'
}
