#!/usr/bin/env bash
# Opens a report in headless Chromium and fails on any console message or any request it makes.
# use: scripts/check_report.sh REPORT.html
#      scripts/check_report.sh --self-test     (must see an image request, a console error, a clean page)
set -eu
if [ "${1:-}" = --self-test ]; then
    pages=$(mktemp -d)
    trap 'rm -rf "$pages"' EXIT
    echo '<!doctype html><link rel="icon" href="data:,"><p>clean' >"$pages/clean.html"
    echo '<!doctype html><img src="http://example.invalid/a.png">' >"$pages/request.html"
    echo '<!doctype html><script>console.error("seen")</script>' >"$pages/console.html"
    "$0" "$pages/clean.html"
    for page in request console; do
        rc=0
        "$0" "$pages/$page.html" || rc=$?
        [ "$rc" -eq 1 ] || { echo "self-test: $page.html was answered with $rc, not 1" >&2; exit 1; }
    done
    echo "self-test passed"
    exit 0
fi
[ $# -eq 1 ] && [ -f "$1" ] || { echo "use: $0 REPORT.html (an existing file)" >&2; exit 2; }
report=$(realpath "$1")
browser=""
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then browser=$name; break; fi
done
[ -n "$browser" ] || { echo "no Chromium found; on Debian: apt-get install chromium" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
timeout 60 "$browser" --headless --no-sandbox --disable-gpu --disable-background-networking \
    --disable-component-update --disable-sync --no-first-run --user-data-dir="$work/profile" \
    --enable-logging=stderr --log-net-log="$work/net.json" --net-log-capture-mode=Everything \
    --host-resolver-rules="MAP * ~NOTFOUND" --timeout=2000 --dump-dom "file://$report" >"$work/dom.html" 2>"$work/log" ||
    { echo "$browser failed:" >&2; tail -5 "$work/log" >&2; exit 1; }
grep -q '</html>' "$work/dom.html" || { echo "the page did not load" >&2; exit 1; }
[ -s "$work/net.json" ] || { echo "the browser wrote no net log, so nothing is known" >&2; exit 1; }
failed=0
if grep -F ':CONSOLE' "$work/log" >&2; then echo "console messages, above" >&2; failed=1; fi
# requests of the browser itself carry the initiator "not an origin"
if grep -F '"initiator":' "$work/net.json" | grep -v '"initiator":"not an origin"' |
    grep -o '"url":"[^"]*"' | sort -u | grep -v '"url":"\(file\|data\):' >&2; then
    echo "requests, above" >&2
    failed=1
fi
[ "$failed" -eq 0 ] && echo "$1: no console message, no request"
exit "$failed"
