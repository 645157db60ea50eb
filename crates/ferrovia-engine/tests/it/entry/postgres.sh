#!/bin/sh
# As the official image does: as root take the data directory over, then start again as postgres.
set -e
export PGDATA=/var/lib/postgresql/data PATH="/usr/lib/postgresql/15/bin:$PATH"
if [ "$(id -u)" = 0 ]; then
  mkdir -p "$PGDATA" /var/run/postgresql
  chmod 00700 "$PGDATA"
  chmod 03775 /var/run/postgresql
  find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
  find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
  exec gosu postgres "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --username=postgres --auth=trust >/dev/null
  echo 'host all all all trust' >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c "listen_addresses=*"
