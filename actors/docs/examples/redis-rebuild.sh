#!/bin/sh
# Makes a redis-server as another is: redis-rebuild.sh HOST PORT OTHER-HOST OTHER-PORT
# The other may go on meanwhile: its number of what it performed comes along with its data.
set -eu
redis() { redis-cli -h "$HOST" -p "$PORT" "$@"; }
HOST=$1 PORT=$2

cat >/dev/null # what export wrote is not needed
redis REPLICAOF "$3" "$4"
while :; do
	state=$(redis INFO replication) || state=
	case $state in
	*master_link_status:up*) break ;;
	*role:slave*) ;;
	# It was started again meanwhile, and does not know any more whose replica it is.
	*role:master*) redis REPLICAOF "$3" "$4" ;;
	esac
	sleep 0.1
done
redis REPLICAOF NO ONE
