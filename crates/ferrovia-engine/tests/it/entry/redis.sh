#!/bin/sh
# As the official image does: as root take the data directory over, then start again as redis.
set -e
if [ "$(id -u)" = 0 ]; then
  mkdir -p /data
  cd /data
  find . \! -user redis -exec chown redis '{}' +
  exec setpriv --reuid redis --regid redis --clear-groups "$0" "$@"
fi
cd /data
umask 0077
exec redis-server --bind 0.0.0.0 --protected-mode no
