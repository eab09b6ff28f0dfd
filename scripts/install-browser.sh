#!/bin/sh
# Installs Debian's Chromium, in which the tests open the report and the page of examples/browser,
# and from npm what that page runs a network with. Leaves with 0 where it cannot: the tests that
# need them are skipped then, and say so.
page="$(dirname "$0")/../examples/browser"

install_chromium() {
    [ -x /usr/bin/chromium ] && return
    if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
        echo "no /usr/bin/chromium, and this script installs it only as root on Debian;" \
            "the tests in a browser are skipped" >&2
        return
    fi
    apt-get update && apt-get install -y --no-install-recommends chromium fonts-dejavu-core ||
        echo "chromium could not be installed; the tests in a browser are skipped" >&2
}

install_onnxruntime_web() {
    [ "$page/node_modules/.package-lock.json" -nt "$page/package-lock.json" ] && return
    if ! command -v npm >/dev/null; then
        echo "no npm; the test of examples/browser is skipped" >&2
        return
    fi
    npm ci --prefix "$page" --ignore-scripts --no-audit --no-fund ||
        echo "onnxruntime-web could not be installed; the test of examples/browser is skipped" >&2
}

install_chromium
install_onnxruntime_web
exit 0
