#!/usr/bin/bash
# Run by systemd in the machine that test_boot.py boots. Everything goes to /t.
set -euo pipefail
exec >/t/log 2>&1
cd /opt/llamafile-recipe
unit=llamafile-recipe@demo-8080
of() { systemctl show -P "$1" "$unit"; }
fact() { echo "$1=$2" >>/t/facts; }
health() { curl -sS --max-time 5 -o /dev/null -w '%{http_code}' "http://127.0.0.1:$1/health"; }
ask() { # PORT TOKENS STREAM
  curl -sSN --max-time 100 "http://127.0.0.1:$1/v1/chat/completions" \
    -d '{"messages":[{"role":"user","content":"Tell me a story"}],"ignore_eos":true,"max_tokens":'"$2"',"stream":'"$3"'}'
}
load() { # a request that is not answered to its end is a line of /t/lost
  while [ ! -e /t/rolled ]; do
    ask 9000 60 true | grep -qF '[DONE]' || echo stream >>/t/lost
    ask 9000 60 false | grep -qF '"completion_tokens":60' || echo answer >>/t/lost
    echo >>/t/asked
  done
}
trap 'journalctl -o short-monotonic --no-pager >/t/journal; systemctl show "$unit" >/t/show' EXIT

mkdir -p /etc/systemd/system/llamafile-recipe@.service.d
cp /t/python.conf /etc/systemd/system/llamafile-recipe@.service.d
# what the package of haproxy does when it is installed
echo 'u haproxy - - /var/lib/haproxy' | systemd-sysusers -
mkdir -p /var/lib/haproxy /etc/haproxy
systemd-tmpfiles --create haproxy.conf
printf 'defaults\n  timeout connect 1s\n  timeout client 1s\n  timeout server 1s\nfrontend f\n  bind 127.0.0.1:1\n' \
  >/etc/haproxy/haproxy.cfg
systemctl start haproxy

set -x
. /t/servers.sh
fact ready "$(health 8080) $(health 8081) $(health 8082)" # without a wait: systemctl returned when they were
fact uid "$(stat -c %u "/proc/$(of MainPID)")"

before=$(of MainPID)
kill -9 "$before"
set +x
until [ "$(of NRestarts)" = 1 ] && [ "$(of ActiveState)" = active ]; do sleep 0.2; done
set -x
fact restarted "$(health 8080)"
[ "$(of MainPID)" != "$before" ]

. /t/balancer.sh
touch /t/lost /t/asked
load &
loads=$!
load &
loads="$loads $!"
. /t/roll.sh
touch /t/rolled
wait $loads
fact lost "$(wc -l </t/lost)"

ask 8080 2000 true >/t/stream &
until grep -q data: /t/stream; do sleep 0.1; done
systemctl stop "$unit"
wait "$!"
fact stopped "$(of Result) $(of ActiveState) $(of ExecMainStatus)"
systemctl stop 'llamafile-recipe@*'
fact failed "$(systemctl list-units --failed --no-legend 'llamafile-recipe@*' | wc -l)"
fact processes "$(pgrep -c -f 'doit|tasks.server|tasks.engine' || true)"
