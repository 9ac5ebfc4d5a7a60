"""project-ci.yml: valid, and what its jobs do to an App Engine that is only played."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import cloud_sdk
from tests.support.pipeline import (
    DIGEST,
    GITLAB_TOKEN,
    IMAGE_NAME,
    OLDER,
    PIPELINE,
    ROOT,
    TOKEN,
    Completed,
    DryRun,
    document,
    jobs,
)

NEW = "vc0ffee0-abababa"
ENVIRONMENTS = ("dev", "pprd", "prd")
SCRIPTS = sorted((ROOT / "deploy").glob("*.sh"))


@pytest.fixture
def dry(tmp_path: Path) -> DryRun:
    return DryRun(tmp_path)


@pytest.fixture
def built(dry: DryRun) -> DryRun:
    """A pipeline whose image is there, and an environment with an old version."""
    succeeded(dry.job("build"))
    dry.version("vold")
    dry.gcloud["records"] = {f"mqtt.{name}.plant.example.": "10.0.0.1" for name in ENVIRONMENTS}
    return dry


def succeeded(result: Completed) -> None:
    assert result.returncode == 0, result.stdout + result.stderr


def failed(result: Completed, words: str) -> None:
    assert result.returncode != 0, result.stdout
    assert words in result.stderr
    assert "Remedy: " in result.stderr


# --- the files ------------------------------------------------------------------------------------


def check(path: Path) -> Completed:
    program = Path(sys.executable).parent / "check-jsonschema"
    options = ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"]
    return subprocess.run([program, *options, path], capture_output=True, text=True)


def test_the_pipeline_is_what_gitlabs_schema_allows(tmp_path: Path) -> None:
    result = check(PIPELINE)
    assert result.returncode == 0, result.stdout
    wrong = tmp_path / "project-ci.yml"
    wrong.write_text(PIPELINE.read_text().replace("resource_group:", "resource_groups:"))
    assert check(wrong).returncode != 0


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_the_scripts_are_as_shellcheck_wants_them(script: Path) -> None:
    program = Path(sys.executable).parent / "shellcheck"
    result = subprocess.run([program, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_stages_go_from_the_checks_to_production() -> None:
    order = ["lint", "test", "build", "scan", "deploy-dev", "deploy-pprd", "deploy-prd"]
    stages = document()["stages"]
    places = [stages.index(jobs()[name]["stage"]) for name in order]
    assert places == sorted(places)
    for earlier, later in [("lint", "build"), ("test", "build"), ("scan", "deploy-dev")]:
        assert earlier in jobs()[later]["needs"]
    for earlier, later in [("deploy-dev", "deploy-pprd"), ("deploy-pprd", "deploy-prd")]:
        assert earlier in jobs()[later]["needs"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_one_job_at_a_time_acts_in_an_environment(environment: str) -> None:
    acting = [
        job for job in jobs().values() if job.get("environment", {}).get("name") == environment
    ]
    assert len(acting) == 3  # deploy, rollback, address
    assert {job["resource_group"] for job in acting} == {environment}


def test_only_a_person_deploys_beyond_dev_or_rolls_back() -> None:
    by_hand = {name for name, job in jobs().items() if job["rules"][0].get("when") == "manual"}
    rollbacks = {f"rollback-{name}" for name in ENVIRONMENTS}
    assert by_hand == {"deploy-pprd", "deploy-prd"} | rollbacks


def test_every_job_in_google_cloud_logs_in_with_gitlabs_own_token_and_no_key() -> None:
    for name, job in jobs().items():
        if name in ("lint", "test"):
            continue
        assert job["id_tokens"] == {"GITLAB_TOKEN_FOR_GOOGLE": {"aud": "fcts-bridge"}}
        assert job["before_script"] == ["deploy/login.sh"]
        assert not job["interruptible"]
    for file in (PIPELINE, *SCRIPTS):
        assert "GOOGLE_APPLICATION_CREDENTIALS" not in file.read_text()


def test_every_variable_that_an_operator_has_to_set_is_in_the_runbook() -> None:
    needs = [line for file in SCRIPTS for line in file.read_text().splitlines()]
    words = {word for line in needs if line.startswith("need ") for word in line.split()[1:]}
    given = {"CI_COMMIT_SHA", "GITLAB_TOKEN_FOR_GOOGLE"}
    runbook = (ROOT / "docs" / "deploy.md").read_text()
    assert len(words - given) > 5
    assert {word for word in words - given if f"| `{word}` |" not in runbook} == set()


# --- login, build, scan ---------------------------------------------------------------------------


def test_the_login_keeps_the_token_out_of_the_arguments_and_of_the_checkout(dry: DryRun) -> None:
    succeeded(dry.job("build"))
    (line,) = dry.asked("iam workload-identity-pools create-cred-config projects/1/")
    source = next(word for word in line.split() if word.startswith("--credential-source-file="))
    file = Path(source.split("=")[1])
    assert file.read_text() == GITLAB_TOKEN
    assert file.stat().st_mode & 0o077 == 0
    assert not file.is_relative_to(dry.checkout)
    assert not any(GITLAB_TOKEN in call for call in dry.calls)


def test_a_commit_is_built_once_however_often_the_job_runs(dry: DryRun) -> None:
    succeeded(dry.job("build"))
    succeeded(dry.job("build"))
    assert len(dry.asked("builds submit")) == 1
    assert (dry.checkout / "image.env").read_text() == f"IMAGE={IMAGE_NAME}@{DIGEST}\n"


def test_a_build_without_a_digest_ends_the_pipeline(dry: DryRun) -> None:
    dry.gcloud["broken"] = ["artifacts docker images describe"]
    failed(dry.job("build"), "is not an image of Artifact Registry by its digest")
    assert not (dry.checkout / "image.env").exists()


@pytest.mark.parametrize(
    ("findings", "blocks"),
    [
        ("", False),
        ("MEDIUM True CVE-1\nLOW True CVE-2", False),
        ("CRITICAL False CVE-1\nHIGH  CVE-2", False),
        ("MEDIUM True CVE-1\nHIGH True CVE-2", True),
        ("CRITICAL True CVE-1", True),
    ],
)
def test_the_scan_blocks_what_is_severe_and_can_be_fixed(
    built: DryRun, findings: str, blocks: bool
) -> None:
    built.gcloud["findings"] = findings
    result = built.job("scan")
    assert (result.returncode != 0) == blocks, result.stderr
    assert ("vulnerabilities with a fix" in result.stderr) == blocks


# --- deploy ---------------------------------------------------------------------------------------


def test_the_same_digest_goes_through_all_environments(dry: DryRun) -> None:
    for name in ("build", "scan", "deploy-dev"):
        succeeded(dry.job(name))
    for environment in ("pprd", "prd"):
        dry.gcloud["versions"] = {}  # the next project's
        succeeded(dry.job(f"deploy-{environment}"))
    deploys = dry.asked("app deploy")
    assert [call.split()[2] for call in deploys] == ["dev.yml", "pprd.yml", "prd.yml"]
    assert all(f"--image-url={IMAGE_NAME}@{DIGEST}" in call for call in deploys)
    assert len(dry.asked("builds submit")) == 1


def test_a_release_asks_the_new_version_before_anything_happens_to_the_old(built: DryRun) -> None:
    succeeded(built.job("deploy-dev"))
    acts = ("app deploy", "app services", "app versions stop", "dns record-sets update")
    assert [call for call in built.calls if call.startswith(acts)] == [
        f"app deploy dev.yml --quiet --version={NEW} --image-url={IMAGE_NAME}@{DIGEST}"
        " --no-promote --no-stop-previous-version",
        f"app services set-traffic default --splits={NEW}=1 --quiet",
        "app versions stop vold --service=default --quiet",
        "dns record-sets update mqtt.dev.plant.example. --zone=plant --type=A"
        " --ttl=30 --rrdatas=10.0.0.7",
    ]
    assert built.serving() == [NEW]
    asked = [words[-1] for words, _ in built.curl["calls"]]
    own = f"https://{NEW}-dot-your-project.example"
    whole = "https://your-project.example"
    assert asked == [f"{own}/readyz", f"{own}/ledger", f"{whole}/readyz", f"{whole}/ledger"]


def test_the_name_of_a_versions_host_fits_into_63_characters() -> None:
    assert len(f"{NEW}-dot-default-dot-{'p' * 30}") <= 63


@pytest.mark.parametrize("trouble", ["unready", "ledger"])
def test_a_new_version_that_is_no_good_is_stopped_and_the_old_one_stays(
    built: DryRun, trouble: str
) -> None:
    built.curl |= {"unready": [NEW]} if trouble == "unready" else {"ledger": '{"balanced":false}'}
    failed(built.job("deploy-dev"), "was not 200" if trouble == "unready" else "does not balance")
    assert built.serving() == ["vold"]
    assert built.gcloud["versions"]["vold"]["traffic"] == 1
    assert not built.asked("dns record-sets update")


def test_another_image_than_the_one_that_was_ordered_is_not_let_in(built: DryRun) -> None:
    built.gcloud["deployed_image"] = f"{IMAGE_NAME}@{OLDER}"
    failed(built.job("deploy-dev"), f"and not {IMAGE_NAME}@{DIGEST}")
    assert built.serving() == ["vold"]


def test_two_serving_versions_fail_in_words_before_the_sensors_are_led_over(built: DryRun) -> None:
    built.gcloud["stuck"] = ["vold"]
    failed(built.job("deploy-dev"), f"these versions serve, and not {NEW} alone: vold {NEW}")
    assert not built.asked("dns record-sets update")


@pytest.mark.parametrize(
    "step",
    ["app deploy", "app services set-traffic", "app versions stop vold", "dns", "app describe"],
)
def test_a_release_that_was_interrupted_goes_on_when_the_job_runs_again(
    built: DryRun, step: str
) -> None:
    built.gcloud["broken"] = [step]
    assert built.job("deploy-dev").returncode != 0
    built.gcloud["broken"] = []
    succeeded(built.job("deploy-dev"))
    assert built.serving() == [NEW]
    assert built.gcloud["records"]["mqtt.dev.plant.example."] == "10.0.0.7"
    assert len(built.asked("app deploy")) == (2 if step == "app deploy" else 1)


def test_what_serves_alone_is_never_stopped_by_a_failed_smoke_test(built: DryRun) -> None:
    succeeded(built.job("deploy-dev"))
    built.curl["unready"] = ["v"]
    failed(built.job("deploy-dev"), "was not 200")
    assert built.serving() == [NEW]


def test_a_version_that_has_the_traffic_is_not_given_up_while_the_old_one_still_runs(
    built: DryRun,
) -> None:
    built.gcloud["broken"] = ["app versions stop vold"]
    assert built.job("deploy-dev").returncode != 0
    built.curl["unready"] = ["v"]
    assert built.job("deploy-dev").returncode != 0
    assert built.serving() == ["vold", NEW]


def test_a_first_deploy_needs_no_version_before_it_and_creates_the_record(dry: DryRun) -> None:
    succeeded(dry.job("build"))
    succeeded(dry.job("deploy-dev"))
    assert dry.serving() == [NEW]
    assert len(dry.asked("dns record-sets create")) == 1


def test_a_descriptor_for_another_project_is_refused(built: DryRun) -> None:
    result = built.job("deploy-dev", GCP_PROJECT_ID="plant-prd-1")
    failed(result, "dev.yml is not for the project plant-prd-1")
    assert not built.asked("app deploy")


def test_a_descriptor_with_names_to_be_filled_in_is_refused(built: DryRun) -> None:
    shutil.copy(ROOT / "dev.yml", built.checkout)
    failed(built.job("deploy-dev"), "still has names that begin with 'your-'")
    assert not built.asked("app deploy")


@pytest.mark.parametrize("name", ["HTTP_TOKEN", "MQTT_HOST", "GCP_PROJECT_ID"])
def test_a_variable_that_is_missing_is_named(built: DryRun, name: str) -> None:
    failed(built.job("deploy-dev", **{name: ""}), f"{name} is not set")


def test_the_token_is_in_no_argument_and_in_no_output(built: DryRun) -> None:
    built.curl["ledger"] = '{"balanced":false}'
    bad = built.job("deploy-dev")
    built.curl["ledger"] = '{"balanced":true,"sites":{}}'
    good = built.job("deploy-dev")
    assert (bad.returncode, good.returncode) == (1, 0)
    assert TOKEN not in bad.stdout + bad.stderr + good.stdout + good.stderr
    assert not any(TOKEN in call for call in built.calls)
    calls = built.curl["calls"]
    assert not any(TOKEN in word for words, _ in calls for word in words)
    assert any(given == f'header = "Authorization: Bearer {TOKEN}"\n' for _, given in calls)


# --- rollback and address -------------------------------------------------------------------------


def test_a_rollback_deploys_the_digest_that_is_given(dry: DryRun) -> None:
    dry.version("vbad")
    succeeded(dry.job("rollback-prd", ROLLBACK_DIGEST=OLDER))
    (deploy,) = dry.asked("app deploy")
    assert deploy.startswith("app deploy prd.yml ")
    assert f"--image-url={IMAGE_NAME}@{OLDER}" in deploy
    assert dry.serving() == ["vc0ffee0-0d0d0d0"]


@pytest.mark.parametrize(
    ("digest", "words"),
    [
        ("latest", "is not an image of Artifact Registry by its digest"),
        (DIGEST.upper(), "is not an image of Artifact Registry by its digest"),
        (f"sha256:{'77' * 32}", "is not in the registry"),
    ],
)
def test_a_rollback_to_what_was_never_built_is_refused(
    dry: DryRun, digest: str, words: str
) -> None:
    dry.version("vbad")
    failed(dry.job("rollback-prd", ROLLBACK_DIGEST=digest), words)
    assert dry.serving() == ["vbad"]
    assert not dry.asked("app deploy")


def test_the_address_of_a_replaced_instance_is_followed_once(dry: DryRun) -> None:
    dry.version("vold")
    dry.gcloud["records"] = {"mqtt.dev.plant.example.": "10.0.0.1"}
    succeeded(dry.job("address-dev"))
    succeeded(dry.job("address-dev"))
    assert len(dry.asked("dns record-sets update")) == 1


def test_the_sensors_are_not_led_anywhere_while_two_versions_serve(dry: DryRun) -> None:
    dry.version("vold")
    dry.version("vnew", traffic=0)
    failed(dry.job("address-dev"), "not one version serves but")
    assert not dry.asked("dns")


def test_without_a_zone_the_address_is_said(dry: DryRun) -> None:
    dry.version("vold")
    result = dry.job("address-dev", DNS_ZONE="")
    succeeded(result)
    assert "point mqtt.dev.plant.example to 10.0.0.7 by hand" in result.stdout


# --- the real gcloud ------------------------------------------------------------------------------


EXECUTE = """
import json, sys
from googlecloudsdk import gcloud_main
gcloud = gcloud_main.CreateCLI([])
for words in json.load(sys.stdin):
    try:
        gcloud.Execute(words)
    except SystemExit as end:
        # 1: it has no account. 2: it does not know the command, or one of its options.
        print(end.code, *words)
"""


def test_the_real_gcloud_knows_every_command_and_option(built: DryRun, tmp_path: Path) -> None:
    for job in ("scan", "deploy-dev", "address-dev"):
        succeeded(built.job(job))
    built.gcloud["versions"][NEW]["status"] = "STOPPED"
    succeeded(built.job("deploy-dev"))
    calls = {" ".join(words[:4]): words for words in built.gcloud["calls"]}
    asked = [[*words, "--project=plant-dev-1"] for words in calls.values()]
    asked.append(["app", "versions", "stop", "v", "--no-such-option"])
    result = cloud_sdk.run(EXECUTE, tmp_path, json.dumps(asked))
    unknown = [line for line in result.stdout.splitlines() if line.startswith("2 ")]
    assert unknown == ["2 app versions stop v --no-such-option"], result.stderr
    assert "1 app deploy dev.yml" in result.stdout
