#!/usr/bin/env bash
# deploy/scan.sh IMAGE@DIGEST: let Artifact Analysis look at the image. The threshold: nothing CRITICAL
# or HIGH for which there is a fix. What cannot be fixed yet is shown and does not block, or nothing
# could be deployed until Debian has a fix, a more urgent repair included.
set -euo pipefail
source "$(dirname "$0")/common.sh"

image=${1:?the image by its digest}
need_digest "$image"
scan=$(gcloud artifacts docker images scan "$image" --remote --quiet --format='value(response.scan)')
[[ -n $scan ]] || fail "the scan of $image has no name" \
    "enable ondemandscanning.googleapis.com, and grant roles/ondemandscanning.admin"

# Lines of: severity, whether there is a fix (True), what it is.
found=$(gcloud artifacts docker images list-vulnerabilities "$scan" \
    --format='value[separator=" "](vulnerability.effectiveSeverity,vulnerability.fixAvailable,vulnerability.shortDescription)')
severe=$(grep -E '^(CRITICAL|HIGH) ' <<<"$found" || true)
blocking=$(grep -E '^[A-Z]+ True ' <<<"$severe" || true)
say "found in $image, CRITICAL and HIGH:"
echo "${severe:-nothing}"
[[ -z $blocking ]] || fail "$(wc -l <<<"$blocking") vulnerabilities with a fix (True) block $image" \
    "build it anew with the fixed packages: pin a newer base image, or newer requirements"
