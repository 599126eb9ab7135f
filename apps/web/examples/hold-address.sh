#!/bin/sh
# Gives this machine an address for as long as the site here serves: clients that know one address find
# a site that lives. A service of the cluster runs it at one main at a time.
#
#   hold-address.sh ADDRESS/BITS INTERFACE READY-URL
set -u
address=$1 interface=$2 ready=$3

release() {
  ip address delete "$address" dev "$interface" 2>/dev/null
  exit "$1"
}
trap 'release 0' TERM INT

announced=
while curl --silent --fail --output /dev/null --max-time 1 "$ready"; do
  # The kernel takes it back by itself, should nobody be left to do so.
  ip address replace "$address" dev "$interface" valid_lft 2 preferred_lft 2 || release 1
  if [ -z "$announced" ]; then
    # Neighbours that remember the other machine learn of this one.
    arping -q -A -c 2 -I "$interface" "${address%/*}" || release 1
    announced=yes
  fi
  sleep 0.5 &
  wait $!
done
echo "hold-address: $ready says that clients are better served elsewhere" >&2
release 1
