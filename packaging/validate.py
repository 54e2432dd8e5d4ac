"""Checks what `cargo xtask dist` made against the schemas of those who read it.

    validate.py KUBERNETES_FOLDER SBOM KUBERNETES_VERSION...

Kubernetes's own kinds by kubernetes-validate, strictly: a field that the schema does not know is an
error. The Prometheus operator's by the models that are generated from its resource definitions; what a
model does not know is missing when it is written again. The SBOM by CycloneDX's own schema.
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

# Read by kustomize alone, whose schema no package has.
KUSTOMIZATION = {"apiVersion", "kind", "namespace", "resources", "images"}


def unknown_fields(given, understood, path):
    """Paths of what is given and was not understood."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(understood, dict) or key not in understood:
                yield f"{path}.{key}"
            else:
                yield from unknown_fields(value, understood[key], f"{path}.{key}")
    elif isinstance(given, list):
        for index, value in enumerate(given):
            yield from unknown_fields(value, understood[index], f"{path}[{index}]")


def check(document, folder, versions):
    kind = document["kind"]
    group = document["apiVersion"].split("/")[0]
    if group == "kustomize.config.k8s.io":
        if unknown := set(document) - KUSTOMIZATION:
            raise ValueError(f"unknown fields {unknown}")
        for resource in document["resources"]:
            if not (folder / resource).is_file():
                raise ValueError(f"{resource} is not there")
    elif group == "monitoring.coreos.com":
        understood = getattr(operator, kind).model_validate(document)
        again = understood.model_dump(mode="json", by_alias=True, exclude_unset=True)
        if unknown := list(unknown_fields(document, again, kind)):
            raise ValueError(f"unknown fields {unknown}")
    else:
        for version in versions:
            kubernetes_validate.validate(document, version, strict=True)


def main(folder, sbom, *versions):
    folder = pathlib.Path(folder)
    faults = checked = 0
    for file in sorted(folder.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            try:
                check(document, folder, versions)
                checked += 1
            except Exception as error:  # whatever a validator raises is a fault of the file
                faults += 1
                why = str(error).split("\n\n")[0]
                print(f"{file.name}: {document.get('kind')}: {why}", file=sys.stderr)
    text = pathlib.Path(sbom).read_text()
    version = SchemaVersion.from_version(json.loads(text)["specVersion"])
    if error := JsonStrictValidator(version).validate_str(text):
        faults += 1
        print(f"{sbom}: {error!r}", file=sys.stderr)
    print(f"{checked} resources fit Kubernetes {', '.join(versions)} and the operator")
    sys.exit(1 if faults or not checked else 0)


main(*sys.argv[1:])
