#!/bin/sh
# Installs what the tests need from Debian, if it is missing. Where that cannot be done, says so
# and goes on: the tests that need it skip, visibly.
missing=""
command -v redis-server >/dev/null || missing="$missing redis-server redis-tools"
command -v nutcracker >/dev/null || test -x /usr/sbin/nutcracker || missing="$missing nutcracker"
test -e /usr/share/dict/american-english || missing="$missing wamerican"
command -v strace >/dev/null || missing="$missing strace"
test -z "$missing" && exit 0
echo "installing for the tests:$missing"
as_root=""
test "$(id -u)" = 0 || as_root="sudo -n"
{ $as_root apt-get update -q && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -q -y \
    --no-install-recommends $missing; } >/dev/null 2>&1 ||
    echo "could not install$missing: the tests that need them will skip"
exit 0
