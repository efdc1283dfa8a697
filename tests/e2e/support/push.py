"""Puts images into an open registry by plain HTTP."""

import json

from tests.e2e.support.images import Blob, Image, Index
from tests.e2e.support.plain_http import fetch


def push_image(registry: str, name: str, tag: str, image: Image | Index) -> None:
    for part in image.images if isinstance(image, Index) else (image,):
        for blob in part.blobs:
            push_blob(registry, name, blob)
        push_manifest(registry, name, part.manifest.digest, part.manifest)
    push_manifest(registry, name, tag, image.manifest)


def push_blob(registry: str, name: str, blob: Blob) -> None:
    begun = fetch("POST", f"{registry}/v2/{name}/blobs/uploads/", body=b"")
    assert begun.status == 202, begun.body
    location = begun.headers["Location"]
    join = "&" if "?" in location else "?"
    headers = {"Content-Type": "application/octet-stream"}
    done = fetch("PUT", f"{location}{join}digest={blob.digest}", headers, blob.content)
    assert done.status == 201, done.body


def push_manifest(registry: str, name: str, reference: str, manifest: Blob) -> None:
    headers = {"Content-Type": manifest.media_type}
    done = fetch("PUT", f"{registry}/v2/{name}/manifests/{reference}", headers, manifest.content)
    assert done.status == 201, json.loads(done.body)
