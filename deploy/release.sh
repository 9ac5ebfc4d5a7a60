#!/usr/bin/env bash
# deploy/release.sh DESCRIPTOR IMAGE@DIGEST: let one environment run this image, and only it.
#
#   1. start the new version beside the old one, without traffic; the sensors' name leads to the old
#   2. ask the new one through its own address; if it is no good, stop it: the old one never noticed
#   3. send the web traffic to the new one, and stop the old one: it drains, and hands on the rest
#   4. let the sensors' name lead to the new one
#
# So no two brokers take readings at a time, and a site's later readings come after its earlier ones.
# The sensors keep theirs from 3 to 4. Can be run again after a failure anywhere: it goes on.
set -euo pipefail
here=$(dirname "$0")
source "$here/common.sh"

SERVICE=default
descriptor=${1:?the descriptor, such as dev.yml}
image=${2:?the image by its digest}
need GCP_PROJECT_ID HTTP_TOKEN MQTT_HOST CI_COMMIT_SHA
need_digest "$image"
digest=${image##*@sha256:}
# A version is a descriptor (by its commit) and an image. 16 characters: with service and project the
# name of its host may have 63.
version=v${CI_COMMIT_SHA:0:7}-${digest:0:7}
promoted=

check_descriptor() {
    ! grep -q 'your-' "$descriptor" || fail "$descriptor still has names that begin with 'your-'" \
        "put this environment's own names there (docs/deploy.md)"
    grep -qx "  GCP_PROJECT_ID: $GCP_PROJECT_ID" "$descriptor" || fail \
        "$descriptor is not for the project $GCP_PROJECT_ID" \
        "correct GCP_PROJECT_ID there, or among GitLab's variables for this environment"
}

check_registry() {
    gcloud artifacts docker images describe "$image" --format='value(image_summary.digest)' >/dev/null ||
        fail "$image is not in the registry, or may not be read" "give the digest of an image that was built"
}

# Lines of: id, SERVING or STOPPED, share of the traffic.
versions() {
    gcloud app versions list --filter="service=$SERVICE" \
        --format='value[separator=" "](version.id,version.servingStatus,traffic_split)'
}

serving() { versions | awk '$2 == "SERVING" { print $1 }'; }
others() { serving | awk -v own="$version" '$1 != own'; }

start_version() {
    local status
    status=$(versions | awk -v own="$version" '$1 == own { print $2 }')
    say "version $version: ${status:-new}"
    case $status in
    SERVING) ;;
    STOPPED) gcloud app versions start "$version" --service="$SERVICE" --quiet ;;
    *)
        gcloud app deploy "$descriptor" --quiet --version="$version" --image-url="$image" \
            --no-promote --no-stop-previous-version
        ;;
    esac
}

check_image() {
    local runs
    runs=$(gcloud app versions describe "$version" --service="$SERVICE" \
        --format='value(deployment.container.image)')
    [[ ${runs##*@} == "sha256:$digest" ]] || fail "version $version runs '$runs' and not $image" \
        "deploy from another commit, which gives the version another name"
}

# Before the switch, and beside an old version, a new one that is no good is stopped.
abandon() {
    if [[ -z $promoted && -n $(others) ]]; then
        say "stopping $version; the version before it goes on"
        gcloud app versions stop "$version" --service="$SERVICE" --quiet || true
    fi
}

promote() {
    gcloud app services set-traffic "$SERVICE" --splits="$version=1" --quiet
    promoted=yes
}

stop_others() {
    local old
    old=$(others)
    [[ -n $old ]] || return 0
    say "stopping ${old//$'\n'/ }"
    # shellcheck disable=SC2086 # names, one word each
    gcloud app versions stop $old --service="$SERVICE" --quiet
    # What the old one had not settled lies in the bucket, and the new one looks there every minute. It
    # has to have that before the sensors send it anything later: 30 s for the end, 65 s for the look.
    say "waiting ${HANDOVER_SECONDS:-100} seconds for what it hands over"
    sleep "${HANDOVER_SECONDS:-100}"
}

assert_alone() {
    local now
    now=$(serving)
    [[ $now == "$version" ]] || fail "these versions serve, and not $version alone: ${now//$'\n'/ }" \
        "run this job again, or: gcloud app versions stop VERSION --service=$SERVICE"
}

check_descriptor
check_registry
# A version that has the traffic already is the one that a former run had switched to.
promoted=$(versions | awk -v own="$version" '$1 == own && $3 > 0 { print "yes" }')
trap '[[ $? == 0 ]] || abandon' EXIT
start_version
check_image
url=$(gcloud app versions describe "$version" --service="$SERVICE" --format='value(versionUrl)')
"$here/smoke.sh" "$url"
promote
stop_others
assert_alone
"$here/point_dns.sh" "$version"
host=$(gcloud app describe --format='value(defaultHostname)')
"$here/smoke.sh" "https://$host"
say "$GCP_PROJECT_ID runs $image as $version, and nothing else"
