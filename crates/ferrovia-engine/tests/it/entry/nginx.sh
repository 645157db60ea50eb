#!/bin/sh
# As the official image does: logs to the container's output, workers under a user of their own, port 80.
set -e
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log
chown -R www-data:www-data /var/lib/nginx
exec nginx -g 'daemon off;'
