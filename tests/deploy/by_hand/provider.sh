#!/usr/bin/env bash
# Run the compose.yaml of docs/compose.md with a real Docker Compose: provider.sh WORK
# Needs root, apt, runc, curl, iproute2 and the environment of the tests. Everything is in private namespaces, and ends
# with them. Packages of 80 MB, then 60 to 140 s on two busy processors: `up` 6 s with its container, `down` 3 s.
# Passed with Docker Compose 2.40.3 and Docker 28.5.2, storage drivers vfs and overlay2.
set -euo pipefail
script=$(realpath "$0")
repository=$(cd "$(dirname "$script")/../../.." && pwd)
work=$(mkdir -p "$1" && cd "$1" && pwd)
. "$(dirname "$script")/docker.sh"
if [ "${2:-}" != inside ]; then
  get_docker
  exec timeout 300 unshare -mnpf --propagation private --mount-proc bash "$script" "$work" inside
fi
rm -rf "$work/docker-data" "$work/image" "$work/cache" "$work/shop" "$work/blog" "$work/bin"
mkdir -p "$work/image/bin" "$work/shop" "$work/blog" "$work/bin"
start_docker

# what Compose finds on the PATH: the command of this checkout
printf '#!/bin/sh\nPYTHONPATH=%s exec %s -c "import llamafile_recipe; llamafile_recipe.main()" "$@"\n' \
  "$repository" "$(command -v python)" >"$work/bin/llamafile-recipe"
chmod +x "$work/bin/llamafile-recipe"
export PATH="$work/bin:$PATH" LLAMAFILE_RECIPE="$repository" LLAMAFILE_CACHE="$work/cache"

# an image with curl and a shell
for program in curl dash; do
  file=$(realpath "$(command -v $program)")
  cp "$file" "$work/image/bin/$program"
  ldd "$file" | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} "$work/image"
done
ln -s dash "$work/image/bin/sh"
tar -C "$work/image" -c . | docker import - curlimages/curl >/dev/null

for project in shop blog; do
  awk '/^```yaml$/ {on = 1; next} /^```$/ {on = 0} on' "$repository/docs/compose.md" >"$work/$project/compose.yaml"
done
runs() { llamafile-recipe status --json | grep -c '"state": "ready"' || true; }
is() { [ "$2" = "$3" ] && echo "ok: $1" || { echo "failed: $1: $2, expected $3"; exit 1; }; }

cd "$work/shop"
docker compose --progress plain up 2>&1 | tee "$work/up.log"
grep -q '"object":"list"' "$work/up.log" && echo "ok: the container has asked the server"
grep -q 'llm .*demo is ready at http://172.17.0.1:8080' "$work/up.log" && echo "ok: the state of the service"
docker compose --progress plain up -d 2>&1 | grep 'is already running'
is "up twice: one server" "$(runs)" 1
docker compose -f "$work/blog/compose.yaml" up -d
is "a second project: one server" "$(runs)" 1
docker compose --progress plain down 2>&1 | grep 'runs on: blog/llm needs it'
is "down of the first: the second needs it" "$(runs)" 1
docker compose -f "$work/blog/compose.yaml" down
is "down of the second" "$(runs)" 0
llamafile-recipe start demo --host 172.17.0.1 2>/dev/null
docker compose up -d
docker compose down
is "a server of the user's continues to run" "$(runs)" 1
llamafile-recipe stop
echo LLAMA_API_KEY=sesame >.env
docker compose up -d
docker inspect shop-app-1 --format '{{.Config.Env}}' | grep LLM_API_KEY=sesame && echo "ok: a key of .env"
sed -i 's/model: demo/&\n        ctx-size: 512/' compose.yaml
docker compose --progress plain up -d 2>&1 | grep 'demo changes --ctx-size'
is "another option restarts its server" "$(runs)" 1
docker compose down
sed -i 's/model: demo/modle: demo/' compose.yaml
(docker compose up 2>&1 || true) | grep -F 'services.llm.provider.options: there is no modle'
docker compose down
