#!/bin/sh
# Installs Debian's Chromium, in which the tests open the report. Leaves with 0 where it cannot:
# the tests that need a browser are skipped then, and say so.
[ -x /usr/bin/chromium ] && exit 0
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
    echo "no /usr/bin/chromium, and this script installs it only as root on Debian;" \
        "the tests of the report in a browser are skipped" >&2
    exit 0
fi
apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core ||
    echo "chromium could not be installed; the tests of the report in a browser are skipped" >&2
exit 0
