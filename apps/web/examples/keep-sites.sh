#!/bin/sh
# Keeps a list of the sites that serve, as nginx reads it (`upstream sites { include FILE; }`), and runs a
# command when it changes. A service of the cluster runs it beside that nginx.
#
#   keep-sites.sh FILE COMMAND SITE:PORT…
set -u
file=$1 command=$2
shift 2

list() {
  for site; do
    if curl --silent --fail --output /dev/null --max-time 1 "http://$site/.well-known/synod/ready"; then
      # Once refused is not gone: the next look decides.
      echo "server $site max_fails=0;"
    fi
  done
}

# Whoever wrote the file may have ended before the command.
before=
while :; do
  now=$(list "$@")
  # When nobody serves, the last list is as good as any, and nginx wants one.
  if [ -n "$now" ] && [ "$now" != "$before" ]; then
    echo "$now" >"$file.new" && mv "$file.new" "$file" && sh -c "$command" && before=$now
  fi
  sleep 0.3
done
