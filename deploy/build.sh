#!/usr/bin/env bash
# deploy/build.sh: build this commit's image once, and write IMAGE=<repository>@<digest> to image.env.
# Run again, it finds the image of the first time.
set -euo pipefail
source "$(dirname "$0")/common.sh"

need IMAGE_NAME BUILD_SERVICE_ACCOUNT CI_COMMIT_SHA GCP_PROJECT_ID
tagged=$IMAGE_NAME:$CI_COMMIT_SHA

# Empty where there is no such image. Any other trouble shows at the next step.
digest() {
    gcloud artifacts docker images describe "$tagged" \
        --format='value(image_summary.digest)' 2>/dev/null || true
}

if [[ -z $(digest) ]]; then
    say "building $tagged"
    gcloud builds submit . --quiet --suppress-logs \
        --config=deploy/cloudbuild.yml \
        --substitutions="_IMAGE=$tagged,_REVISION=$CI_COMMIT_SHA" \
        --gcs-source-staging-dir="gs://$GCP_PROJECT_ID-build-source/source" \
        --service-account="projects/$GCP_PROJECT_ID/serviceAccounts/$BUILD_SERVICE_ACCOUNT"
fi
image=$IMAGE_NAME@$(digest)
need_digest "$image"
say "the image is $image"
echo "IMAGE=$image" >image.env
