#!/usr/bin/env bash
# deploy/point_dns.sh VERSION: let the sensors' name lead to the address of this version's instance, or
# of the one version that serves. Without DNS_ZONE it only says what the address is.
set -euo pipefail
source "$(dirname "$0")/common.sh"

SERVICE=default
need MQTT_HOST
version=${1:-$(gcloud app versions list --filter="service=$SERVICE AND version.servingStatus=SERVING" \
    --format='value(version.id)')}
[[ -n $version && $version != *$'\n'* ]] || fail "not one version serves but: ${version:-none}" \
    "deploy, or stop those that should not serve"
address=$(gcloud app instances list --service="$SERVICE" --version="$version" \
    --format='value(instance.vmIp)')
[[ $address =~ ^[0-9.]+$ ]] || fail "version $version has not one address but: ${address:-none}" \
    "wait until its instance runs, and run this job again"
if [[ -z ${DNS_ZONE:-} ]]; then
    say "point $MQTT_HOST to $address by hand: DNS_ZONE is not set"
    exit 0
fi

record() {
    gcloud dns record-sets "$1" "$MQTT_HOST." --zone="$DNS_ZONE" --type=A "${@:2}"
}
known=$(record describe --format='value(rrdatas[0])' 2>/dev/null || true)
# Sensors look the name up when they connect. A short life lets them follow at once.
case $known in
"$address") ;;
"") record create --ttl=30 --rrdatas="$address" ;;
*) record update --ttl=30 --rrdatas="$address" ;;
esac
say "$MQTT_HOST leads to $address"
