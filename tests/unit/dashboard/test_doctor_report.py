"""What the doctor prints, and what goes into a bug report."""

import json
import subprocess

from gpu_fraction.dashboard.doctor import bundle, report
from gpu_fraction.dashboard.doctor.table import examine
from gpu_fraction.dashboard.snapshot import Gap, Part
from gpu_fraction.domain import keys
from tests.builders.installation import event, evidence, healthy
from tests.builders.views import gpu_pod


def test_a_healthy_installation_is_one_line() -> None:
    """With the number of checks; ``wide`` names each."""
    results = examine(evidence(healthy()))
    assert report.text(results) == f"{len(results)} checks: {len(results)} ok\n"
    assert report.text(results, every=True).count("OK      ") == len(results)
    assert (report.exit_code(results), report.fixes(results)) == (0, "")


def test_a_finding_says_what_why_how_and_where() -> None:
    """Four lines, for one that fails and makes the exit code 1."""
    objects = [one for one in healthy() if one["kind"] != "EndpointSlice"]
    results = examine(evidence(objects))
    text = report.text(results)
    assert (
        "FAIL    webhook-endpoints: Service gpu-fraction-system/gpu-fraction-webhook: 0 of 0"
        in text
    )
    assert "        why  GPU pods are refused while no replica answers" in text
    assert "        fix  kubectl -n gpu-fraction-system get pods -l" in text
    assert "        see  docs/operations.md#no-endpoints-available-for-service" in text
    assert report.exit_code(results) == 1
    assert "\x1b[31mFAIL" in report.text(results, colour=True)


def test_warnings_count_only_where_strict() -> None:
    """A cluster with a warning works."""
    results = examine(evidence(healthy(), skew_s=100.0))
    assert report.exit_code(results) == 0
    assert report.exit_code(results, strict=True) == 1


def test_fixes_are_commands_with_a_comment() -> None:
    """Each once; what belongs on another machine is a comment."""
    text = report.fixes(examine(evidence(healthy(), skew_s=100.0)))
    comment, command = text.splitlines()
    assert comment.startswith("# clocks: ")
    assert command.startswith("# timedatectl set-ntp true")


def test_fixes_are_a_shell_script() -> None:
    """What is no command is a comment, also on a line of its own; documents stay whole."""
    quota = event("ReplicaSet", "r", "FailedCreate", "insufficient quota to match these scopes")
    handler = event("Pod", "p", "Failed", "no runtime for x\nreboot")
    taint = [one for one in healthy() if one["kind"] == "Node"]
    taint[0]["spec"]["taints"] = [{"key": "k", "effect": "NoSchedule"}]
    rest = [one for one in healthy() if one["kind"] != "Node"]
    text = report.fixes(examine(evidence([*rest, *taint, quota, handler])))
    assert "\n# chart: nodeDaemon.tolerations" in text
    assert "\n# systemctl restart containerd" in text
    assert "reboot" in text
    done = subprocess.run(["sh", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    code = [x for x in text.splitlines() if x and not x.startswith("#")]
    assert [x.split()[0] for x in code] == ["kubectl", '{"apiVersion":', "END"]


def test_a_check_that_may_not_read_says_which_right_is_missing() -> None:
    """It is no failure, and is counted as not examined."""
    gap = Gap("leases", "forbidden", "not permitted: list leases.coordination.k8s.io")
    results = examine(evidence(healthy(), leases=Part(gap=gap)))
    text = report.text(results)
    assert "SKIPPED leases: not permitted: list leases.coordination.k8s.io" in text
    assert text.endswith("2 not examined\n")
    assert report.exit_code(results, strict=True) == 0


def test_programs_get_numbers_names_and_links() -> None:
    """As JSON can hold it."""
    found = report.described(examine(evidence(healthy(), skew_s=100.0)))
    assert json.loads(json.dumps(found)) == found
    assert (found["apiVersion"], found["kind"]) == ("cli.gpu-fraction.dev/v1", "DoctorReport")
    (clocks,) = (one for one in found["checks"] if one["name"] == "clocks")
    assert (clocks["number"], clocks["level"]) == (40, "warn")
    assert clocks["findings"][0]["see"] == "docs/operations.md#the-clocks-differ"
    assert found["summary"]["warn"] == 1


def secretive() -> list[dict[str, object]]:
    """A cluster with names and secrets that must not get out."""
    made = gpu_pod("payroll-model", namespace="finance", node="n1")
    container = made["spec"]["containers"][0]
    container["env"] = [{"name": "PASSWORD", "value": "hunter2"}]
    container["args"] = ["--password=hunter2"]
    made["metadata"]["annotations"]["owner.example.com/mail"] = "boss@example.com"
    said = event("Pod", "payroll-model", "Failed", "denied: Bearer abc.def.ghi", "finance")
    text = "docker login --password=hunter2 https://bob:hunter2@registry.test/x failed"
    more = event("Pod", "payroll-model", "Failed", text, "finance")
    other = next(one for one in healthy() if one["kind"] == "Deployment")
    other["metadata"] |= {"name": "somebody-elses", "labels": {}}
    other["spec"]["template"]["spec"]["containers"][0]["args"] = ["--db", "hunter2"]
    return [*healthy(), made, said, more, other]


def test_a_bundle_holds_no_secret() -> None:
    """No variable, argument, foreign annotation, token or certificate."""
    found = evidence(secretive())
    text = json.dumps(bundle.made(found, examine(found)))
    for word in ("hunter2", "boss@example.com", "abc.def.ghi", "BEGIN CERTIFICATE"):
        assert word not in text
    for word in (
        "payroll-model",
        "finance",
        "caBundleBytes",
        keys.REQUEST,
        "615.71.09",
        "DoctorReport",
    ):
        assert word in text


def test_names_are_replaced_on_request_and_stay_distinguishable() -> None:
    """In objects and in messages; words of the product stay."""
    found = evidence(secretive())
    content = bundle.made(found, examine(found), hashed=True)
    text = json.dumps(content)
    for word in ("payroll-model", "finance", "team-a", "GPU-a", '"n1"', '"budget"'):
        assert word not in text
    assert "gpu-fraction-system" in text
    names = {one["name"] for one in content["pods"]}
    assert len(names) == 2
    (about,) = {one["about"] for one in content["events"]}
    assert about.split("/")[-1] in names
    again = bundle.made(found, examine(found), hashed=True)
    assert {one["name"] for one in again["pods"]}.isdisjoint(names)
