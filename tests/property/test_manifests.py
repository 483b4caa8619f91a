"""Manifests of pods that nobody thought of, through the offline command."""

import copy
import io
import json
from typing import Any

import jsonpatch
from hypothesis import assume, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from gpu_fraction.cli.manifests import Source, read, to_json, to_yaml
from gpu_fraction.cli.mutate import mutate_all
from gpu_fraction.webhook.decide import Decider
from gpu_fraction.webhook.review import decode, encode
from tests.builders.pods import Raw
from tests.builders.strategies import asking_pods, hostile_pods, json_values
from tests.support.reviews import body, patch_of, review, rewriting

SETTINGS = rewriting(gpu_memory_mib="80Gi")


def files(*texts: str) -> list[Source]:
    """As if they came from standard input, one after the other."""
    return [source for text in texts for source in read(["-"], io.StringIO(text))]


def plain(text: str) -> list[Any]:
    """The documents, read by nothing of ours."""
    return list(YAML(typ="safe", pure=True).load_all(text))


def yaml(value: object) -> str:
    """A document in block style, as people write it."""
    out = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.dump(value, out)
    return out.getvalue()


@given(asking_pods())
def test_the_command_makes_the_webhooks_pod(raw: Raw) -> None:
    """The same pod, as YAML and as JSON; and making it again changes nothing."""
    assume(plain(yaml(raw)) == [raw])  # the writer loses U+0085, which YAML folds
    asked = decode(body(review(raw)))
    response = json.loads(encode("u", Decider(SETTINGS).mutate(asked)))["response"]
    sources = files(yaml(raw))
    refusals, _ = mutate_all(sources, SETTINGS)
    assert bool(refusals) is not response["allowed"]
    if refusals:
        return
    expected = jsonpatch.JsonPatch(patch_of(response)).apply(copy.deepcopy(raw))
    written = to_yaml(sources[0])
    assert plain(written) == [expected]
    assert json.loads(to_json(sources)) == expected
    again = files(written)
    assert mutate_all(again, SETTINGS)[0] == []
    assert to_yaml(again[0]) == written


@given(hostile_pods(), st.sampled_from(["Pod", "PodTemplate"]))
def test_no_pod_crashes_the_command(raw: Raw, kind: str) -> None:
    """It is rewritten or refused with its place."""
    document = {"kind": "Pod", **raw} if kind == "Pod" else {"kind": kind, "template": raw}
    sources = files(yaml(document))
    refusals, _ = mutate_all(sources, SETTINGS)
    for line in refusals:
        assert line.startswith(f"-:1 {kind}/(no name): ")
    assert plain(to_yaml(sources[0]))


@given(st.lists(json_values, min_size=1, max_size=3), asking_pods())
def test_other_documents_stay_as_they_are(values: list[object], raw: Raw) -> None:
    """Byte for byte, whatever stands beside them."""
    texts = [f"---\n{yaml({'kind': 'Other', 'spec': value})}" for value in values]
    (source,) = files("".join([*texts, "---\n", yaml(raw), *texts]))
    if mutate_all([source], SETTINGS)[0]:
        return
    written = to_yaml(source)
    assert written.startswith("".join(texts))
    assert written.endswith("".join(texts))
