#!/usr/bin/env bash
# Makes synod_VERSION_ARCH.deb of a built program: packaging/deb.sh [PROGRAM] [OUT]
# By default target/release/synod (cargo build --release -p synod-cli) and target.
set -euo pipefail
cd "$(dirname "$0")/.."
program=${1:-target/release/synod}
out=${2:-target}
if [ ! -x "$program" ]; then
  echo "packaging/deb.sh: $program: is no program; cargo build --release -p synod-cli" >&2
  exit 2
fi
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
arch=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

install -D -m 755 "$program" "$root/usr/bin/synod"
strip --strip-debug "$root/usr/bin/synod"
install -d -m 755 "$root/etc/synod"
for unit in synod synod-auxiliaries; do
  install -D -m 644 "packaging/$unit.service" "$root/lib/systemd/system/$unit.service"
done
install -D -m 644 packaging/synod.sysctl "$root/usr/lib/sysctl.d/60-synod.conf"
for page in LICENSE-APACHE LICENSE-MIT CHANGELOG.md actors/docs/operations.md; do
  install -D -m 644 "$page" "$root/usr/share/doc/synod/$(basename "$page")"
done

# What the program links to, from the libraries it names.
needs=$(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
glibc=$(objdump -T "$program" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
depends="libc6 (>= ${glibc#GLIBC_})"
case "$needs" in *libgcc_s*) depends="$depends, libgcc-s1" ;; esac

install -d -m 755 "$root/DEBIAN"
cat > "$root/DEBIAN/control" <<END
Package: synod
Version: $version
Architecture: $arch
Maintainer: Synod <synod@localhost>
Installed-Size: $(du -sk "$root" | cut -f1)
Depends: $depends
Recommends: systemd
Section: database
Priority: optional
Description: replicated key/value service and actors on two machines and a cheap one
 A cluster of two full machines and one inexpensive one that loses nothing it acknowledged when
 any of them fails. Serves Redis clients and HTTP. Nothing is started at installation: put the
 directory that "synod init" wrote into /etc/synod, then enable synod.service.
END
cat > "$root/DEBIAN/postinst" <<'END'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if ! grep -q '^synod:' "${DPKG_ROOT:-}/etc/passwd"; then
    useradd ${DPKG_ROOT:+--prefix "$DPKG_ROOT"} --system --user-group \
      --home-dir /var/lib/synod --shell /usr/sbin/nologin synod
  fi
  # Running nodes go on with the old program until they are restarted, one after the other.
  if [ -z "${DPKG_ROOT:-}" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
fi
END
chmod 755 "$root/DEBIAN/postinst"
mkdir -p "$out"
dpkg-deb --root-owner-group --build "$root" "$out/synod_${version}_$arch.deb"
