"""The discovery document, from which the ``bq`` command line learns what it may call."""

from __future__ import annotations

import re
from typing import Any

from pipeline.emulators.bigquery.methods import METHODS, SYSTEM

_PATH_PARAMETER = re.compile(r"{(\w+)}")


def discovery_document(root: str) -> dict[str, Any]:
    """The methods in ``METHODS`` as a document of Google's discovery service; ``root`` is the server's own URL."""
    resources: dict[str, Any] = {}
    for name, (verb, path, query) in METHODS.items():
        resource, method = name.split(".")
        in_path = _PATH_PARAMETER.findall(path)
        parameters = {p: {"type": "string", "location": "path", "required": True} for p in in_path}
        parameters |= {p: {"type": "string", "location": "query"} for p in query}
        resources.setdefault(resource, {"methods": {}})["methods"][method] = {
            "id": f"bigquery.{name}",
            "httpMethod": verb,
            "path": path,
            "flatPath": path,
            "parameterOrder": in_path,
            "parameters": parameters,
            "response": {"$ref": "Json"},
            **({"request": {"$ref": "Json"}} if verb in ("POST", "PUT", "PATCH") else {}),
        }
    path = "upload/bigquery/v2/projects/{projectId}/jobs"
    resources["jobs"]["methods"]["insert"] |= {
        "supportsMediaUpload": True,
        "mediaUpload": {
            "accept": ["*/*"],
            "protocols": {
                "simple": {"multipart": True, "path": f"/{path}"},
                "resumable": {"multipart": True, "path": f"/resumable/{path}"},
            },
        },
    }
    return {
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "bigquery:v2",
        "name": "bigquery",
        "version": "v2",
        "protocol": "rest",
        "rootUrl": f"{root}/",
        "servicePath": "bigquery/v2/",
        "basePath": "/bigquery/v2/",
        "baseUrl": f"{root}/bigquery/v2/",
        "batchPath": "batch/bigquery/v2",
        "parameters": {name: {"type": "string", "location": "query"} for name in SYSTEM},
        "schemas": {"Json": {"id": "Json", "type": "object"}},
        "resources": resources,
    }
