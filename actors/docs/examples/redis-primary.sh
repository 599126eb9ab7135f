#!/usr/bin/env bash
# One Redis primary among several stock Redis servers; the page "A Redis that fails over" explains it.
#
#   redis-primary.sh server DIR NAME=HOST…   the server of this node, a replica until it is told otherwise
#   redis-primary.sh primary NAME=HOST…      makes it the primary and opens the door to it
#   redis-primary.sh ready NAME=HOST…        whether the door of this node is open
#
# Servers are at HOST:REDIS_PORT, for one another only; clients come by the door, HOST:REDIS_DOOR.
set -u

DOOR=${REDIS_DOOR:-6379}
PORT=${REDIS_PORT:-6390}
# So many replicas have every write that `WAIT` acknowledged, the primary not counted.
COPIES=${REDIS_COPIES:-1}
# Who answers no sooner is taken for dead: far above a round trip.
PATIENCE=0.3
# Epoch and beat of the primary whose writes a server has.
MARK=synod:primary

verb=$1 && shift
if [ "$verb" = server ]; then dir=$1 && shift; fi
declare -A hosts=()
for server in "$@"; do hosts[${server%%=*}]=${server#*=}; done
here=${hosts[$SYNOD_NODE]:?"$SYNOD_NODE is none of $*"}

say() { echo "$*" >&2; }
ask() { timeout "$PATIENCE" redis-cli -h "$1" -p "$PORT" "${@:2}"; }
field() { sed -n "s/^$1:\([^[:cntrl:]]*\).*/\1/p" <<<"$2"; }

# "EPOCH BEAT OFFSET HOST": how far a server is. The higher, the more it has.
standing() {
  local said mark
  mark=$(ask "$1" get "$MARK") && said=$(ask "$1" info replication) || return
  echo "${mark:-0 0} $(field master_repl_offset "$said") $1"
}

follow() { [ "$(ask "$1" replicaof "$2" "$PORT")" = OK ]; }

# Every acknowledged write is at COPIES + 1 servers, so one of any (all - COPIES) has it.
newest() {
  local found host
  for host in "${hosts[@]}"; do standing "$host" & done >"$1"
  wait
  found=$(sort -k1,1n -k2,2n -k3,3n "$1")
  [ -n "$found" ] && [ "$(wc -l <<<"$found")" -ge $((${#hosts[@]} - COPIES)) ] || return
  tail -n 1 <<<"$found"
}

# The server of this node gets all that the newest has.
catch_up() {
  local epoch beat offset host mine said
  read -r epoch beat offset host <<<"$1"
  [ "$host" = "$here" ] && return
  mine=$(standing "$here") || return
  [ "${mine% *}" = "$epoch $beat $offset" ] && return
  say "$host is ahead: $epoch $beat $offset, here $mine"
  # A replica without a primary hands nothing on.
  ask "$host" replicaof no one >/dev/null && follow "$here" "$host" || return
  for _ in {1..3000}; do
    said=$(ask "$here" info replication)
    [ "$(field master_link_status "$said")" = up ] && [ "$(field master_host "$said")" = "$host" ] &&
      [ "$(field slave_repl_offset "$said")" -ge "$offset" ] && return
    sleep 0.01
  done
  return 1
}

# All others follow this one.
gather() {
  local host
  for host in "${hosts[@]}"; do
    [ "$host" = "$here" ] && continue
    { [ "$(field master_host "$(ask "$host" info replication)")" = "$here" ] || follow "$host" "$here"; } &
    joins+=("$!")
  done
}

primary() {
  local joins=() epoch beat offset host best list
  list=$(mktemp) && trap 'rm -f "$list"' EXIT
  for _ in {1..200}; do
    best=$(newest "$list") && break
    sleep 0.05
  done
  [ -n "$best" ] || { say "too few servers answer to know what was acknowledged"; exit 1; }
  catch_up "$best" || { say "this server did not catch up with $best"; exit 1; }
  read -r epoch beat offset host <<<"$best"
  if [ "$epoch" -gt "$SYNOD_EPOCH" ]; then say "$host has epoch $epoch, this is $SYNOD_EPOCH"; exit 1; fi
  ask "$here" replicaof no one >/dev/null && ask "$here" config set min-replicas-to-write 0 >/dev/null &&
    ask "$here" set "$MARK" "$SYNOD_EPOCH $((beat + 1))" >/dev/null &&
    ask "$here" config set min-replicas-to-write "$COPIES" >/dev/null ||
    { say "this server could not be made the primary"; exit 1; }
  gather
  socat "TCP-LISTEN:$DOOR,bind=$here,fork,reuseaddr,nodelay" "TCP:$here:$PORT,nodelay" &
  local door=$!
  # Nobody writes any more; what was written reaches the replicas.
  trap 'kill "$door"; last_words; rm -f "$list"; exit 0' TERM
  trap 'kill "$door" 2>/dev/null; rm -f "$list"' EXIT
  beat=$((beat + 1))
  while sleep 0.5 & wait "$!"; do
    kill -0 "$door" 2>/dev/null || { say "the door fell shut"; exit 1; }
    [ "$(field role "$(ask "$here" info replication)")" = master ] ||
      { say "this server is the primary no more"; exit 1; }
    wait "${joins[@]}"
    joins=()
    gather
    beat=$((beat + 1))
    # Refused without replicas, as every write.
    ask "$here" set "$MARK" "$SYNOD_EPOCH $beat" >/dev/null
  done
}

last_words() {
  printf 'set %s "%s"\nwait %s 1000\n' "$MARK" "$SYNOD_EPOCH $((beat + 1))" "$COPIES" |
    timeout 2 redis-cli -h "$here" -p "$PORT" >/dev/null
}

case $verb in
server)
  mkdir -p "$dir"
  # It follows nobody (nothing listens at port 1), so that one that lost its data hands that to nobody.
  exec redis-server --port "$PORT" --bind "$here" --protected-mode no --dir "$dir" \
    --appendonly yes --save "" --repl-diskless-sync-delay 0 --min-replicas-max-lag 2 \
    --repl-timeout 5 --replicaof 127.0.0.1 1
  ;;
primary) primary ;;
ready) [ "$(timeout "$PATIENCE" redis-cli -h "$here" -p "$DOOR" ping)" = PONG ] ;;
*)
  say "$verb: one of server, primary, ready"
  exit 2
  ;;
esac
