#!/usr/bin/env bash
# Follows the guide for three machines (actors/docs/operations.md) on this one, as root:
#   packaging/try.sh [PROGRAM]
# Each machine is a network namespace and a root of its own, in which the package is installed. There
# is no systemd in them, so what the unit's ExecStart says is started by hand, as the unit's user.
set -euo pipefail
cd "$(dirname "$0")/.."
program=$(realpath "${1:-target/release/synod}")
work=$(mktemp -d)
machines=(db1 db2 pi)
names=(a b x)

finish() {
  for machine in "${machines[@]}"; do
    if [ -f "$work/$machine.pid" ]; then kill -KILL "$(cat "$work/$machine.pid")" 2>/dev/null || true; fi
    ip netns del "synod-$machine" 2>/dev/null || true
  done
  ip link del synod-try 2>/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
trap "exit 1" TERM INT
say() { printf '\n== %s\n' "$*"; }

# A switch, and a place on it for whoever administrates.
ip link add synod-try type bridge
ip addr add 10.97.0.9/24 dev synod-try
ip link set synod-try up

say "the package"
packaging/deb.sh "$program" "$work"
say "init"
"$program" init --out "$work/shop" --cluster shop --open \
  --main a=10.97.0.1:7001 b=10.97.0.2:7001 --auxiliary x=10.97.0.3:7001

for index in 0 1 2; do
  machine=${machines[index]} root=$work/${machines[index]}
  ip netns add "synod-$machine"
  ip link add "try-$machine" type veth peer name eth0 netns "synod-$machine"
  ip link set "try-$machine" master synod-try up
  ip -n "synod-$machine" addr add "10.97.0.$((index + 1))/24" dev eth0
  ip -n "synod-$machine" link set eth0 up
  ip -n "synod-$machine" link set lo up
  # The libraries the package depends on, and what every machine has.
  mkdir -p "$root"/{etc,dev,proc,var/lib/dpkg/updates,var/lib/dpkg/info}
  touch "$root/var/lib/dpkg/status" "$root/dev/null"
  cp /etc/{passwd,group,shadow,gshadow,login.defs} "$root/etc/"
  ldd "$program" | grep -o '/[^ ]*' | while read -r library; do
    install -D "$library" "$root$library"
  done
  say "$machine: dpkg --install"
  dpkg --root="$root" --force-depends --force-script-chrootless --install "$work"/synod_*.deb
  cp -r "$work/shop/${names[index]}/." "$root/etc/synod/"
  chroot --userspec=0:0 "$root" /usr/bin/synod --version || true
  id=$(sed -n 's/^synod:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p' "$root/etc/passwd")
  chown -R "$id" "$root/etc/synod"
  install -d -m 700 -o "${id%:*}" -g "${id#*:}" "$root/var/lib/synod"
done

start() {
  local machine=$1 root=$work/$1
  local id
  id=$(sed -n 's/^synod:[^:]*:\([0-9]*:[0-9]*\):.*/\1/p' "$root/etc/passwd")
  local command
  command=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/synod.service")
  # shellcheck disable=SC2086 # the words of the unit's command
  ip netns exec "synod-$machine" env -i PATH="$PATH" SYNOD_DATA_DIR=/var/lib/synod/data \
    chroot --userspec="$id" "$root" $command 2>>"$work/$machine.log" &
  echo $! >"$work/$machine.pid"
}

try() { # until it works, for ten seconds
  for _ in $(seq 100); do
    if "$@" 2>"$work/why"; then return; fi
    sleep 0.1
  done
  cat "$work/why" "$work"/*.log >&2
  echo "packaging/try.sh: $*: in vain" >&2
  exit 1
}

client=$work/shop/client.toml token=$(cat "$work/shop/token")
ask() { curl --silent --fail --cacert "$work/shop/ca.pem" --header "Authorization: Bearer $token" "$@"; }

say "systemctl start synod, on each"
for machine in "${machines[@]}"; do start "$machine"; done
try "$program" status --cluster "$client"
try ask --request PUT --data-binary hello https://10.97.0.1:8001/kv/greeting
try ask https://10.97.0.2:8001/kv/greeting
echo

say "db1 loses its power"
kill -KILL "$(cat "$work/db1.pid")"
try ask --request PUT --data-binary "still here" https://10.97.0.2:8001/kv/greeting
try ask https://10.97.0.2:8001/kv/greeting
echo
start db1
try ask https://10.97.0.1:8001/kv/greeting
echo

say "a rolling restart: systemctl restart synod, one after the other"
for index in 0 1 2; do
  machine=${machines[index]}
  kill -TERM "$(cat "$work/$machine.pid")"
  wait "$(cat "$work/$machine.pid")"
  start "$machine"
  try ask "https://10.97.0.$((index + 1)):8001/readyz" --output /dev/null
  try ask --request PUT --data-binary "after $machine" https://10.97.0.2:8001/kv/greeting
done
try ask https://10.97.0.1:8001/kv/greeting
echo
"$program" status --cluster "$client"
say "all as the guide says"
