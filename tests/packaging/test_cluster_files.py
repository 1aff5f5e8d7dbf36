"""The files of docs/examples that start a Ray cluster: valid by the schemas of those that read them."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from luna_farm.config_settings import SETTINGS

yaml = pytest.importorskip("yaml", reason="NOT TESTED: PyYAML, which comes with Ray, is not installed")
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
RAY = importlib.util.find_spec("ray")
CRD = os.environ.get("KUBERAY_CRD", "")


def kuberay() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / "kuberay.yaml").read_text(encoding="utf-8")))


@pytest.mark.skipif(RAY is None, reason="NOT TESTED: Ray, which brings the schema, is not installed")
def test_the_launchers_file_is_valid() -> None:
    assert RAY is not None
    assert RAY.origin is not None
    schema = json.loads((Path(RAY.origin).parent / "autoscaler" / "ray-schema.json").read_text("utf-8"))
    given = yaml.safe_load((EXAMPLES / "cluster.yaml").read_text(encoding="utf-8"))
    jsonschema.validate(given, schema)
    assert given["max_workers"] == len(given["provider"]["worker_ips"])


@pytest.mark.skipif(not CRD, reason="NOT TESTED: KUBERAY_CRD names no file of KubeRay's RayCluster CRD")
def test_the_manifest_is_valid() -> None:
    crd = yaml.safe_load(Path(CRD).read_text(encoding="utf-8"))
    (schema,) = (v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == "v1")
    cluster = next(document for document in kuberay() if document["kind"] == "RayCluster")
    jsonschema.validate(cluster, strict(schema))


def strict(schema: Any) -> Any:
    """The schema with every unknown field refused, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(value) for name, value in schema.items()}
    open_ended = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not open_ended:
        made["additionalProperties"] = False
        if "metadata" in made["properties"] and made["properties"]["metadata"] == {"type": "object"}:
            made["properties"]["metadata"] = {}
    if made.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    return made


def test_both_name_one_release_of_ray_and_settings_that_exist() -> None:
    service, cluster = kuberay()
    head = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    known = {setting.env for setting in SETTINGS}
    assert {row["name"] for row in head["env"]} <= known
    release = cluster["spec"]["rayVersion"]
    assert head["image"].endswith(f":{release}")
    assert f"ray[default]=={release}" in (EXAMPLES / "cluster.yaml").read_text(encoding="utf-8")
    assert f"ray=={release}" in (EXAMPLES.parent / "how-to" / "ray.md").read_text(encoding="utf-8")
    assert service["spec"]["ports"][0]["port"] in [port["containerPort"] for port in head["ports"]]
