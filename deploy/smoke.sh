#!/usr/bin/env bash
# deploy/smoke.sh URL: ask a running bridge whether it takes readings, and whether its ledger balances.
# Waits for it for SMOKE_SECONDS (300).
set -euo pipefail
source "$(dirname "$0")/common.sh"

url=${1:?the address of the bridge}
need HTTP_TOKEN
# The characters of a bearer token; so none of them has to be quoted for curl.
[[ $HTTP_TOKEN =~ ^[A-Za-z0-9._~+/=-]+$ ]] || fail "HTTP_TOKEN has characters that no bearer token has" \
    "store the bridge's token in it, without quotes, spaces and line ends"
[[ $url =~ ^(https://|http://(localhost|127\.0\.0\.1)[:/]) ]] || fail "$url is not https" \
    "give the https address: the token would go over the network in clear"

deadline=$((SECONDS + ${SMOKE_SECONDS:-300}))
until curl --silent --fail --max-time 10 --output /dev/null "$url/readyz"; do
    ((SECONDS < deadline)) || fail "$url/readyz was not 200 within ${SMOKE_SECONDS:-300} seconds" \
        "read the version's log: 'unready' names the reason, 78 a setting"
    sleep "${SMOKE_PAUSE_SECONDS:-5}"
done

# By standard input: arguments stand in the list of processes.
ledger=$(printf 'header = "Authorization: Bearer %s"\n' "$HTTP_TOKEN" |
    curl --silent --show-error --fail --max-time 30 --config - "$url/ledger") ||
    fail "$url/ledger did not answer" \
        "compare HTTP_TOKEN with the secret that HTTP_TOKEN_SECRET names, if it is a 401"
grep -Eq '^\{"balanced": ?true,' <<<"$ledger" || fail "the ledger of $url does not balance: $ledger" \
    "keep the journal, and look for the site whose sums differ"
say "$url is ready, and its ledger balances"
