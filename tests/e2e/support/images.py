"""Generated images, whose digests are known in advance."""

import gzip
import hashlib
import io
import json
import random
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST)


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Blob:
    content: bytes = field(repr=False)
    media_type: str

    @property
    def digest(self) -> str:
        return digest_of(self.content)

    def descriptor(self, **more: Any) -> dict[str, Any]:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content), **more}


@dataclass(frozen=True)
class Image:
    manifest: Blob
    config: Blob
    layers: tuple[Blob, ...]
    diff_ids: tuple[str, ...]

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (self.config, *self.layers)

    @property
    def blob_digests(self) -> set[str]:
        return {blob.digest for blob in self.blobs}


@dataclass(frozen=True)
class Index:
    manifest: Blob
    images: tuple[Image, ...]


def make_image(seed: str, sizes: Sequence[int], *, docker: bool = False, architecture: str = "amd64") -> Image:
    tars = [_layer_tar(f"{seed}-{architecture}-{n}", size) for n, size in enumerate(sizes)]
    kind = DOCKER_LAYER if docker else OCI_LAYER
    # Level 1, because random content does not shrink. The fixed time keeps the digest the same in each run.
    layers = tuple(Blob(gzip.compress(tar, compresslevel=1, mtime=0), kind) for tar in tars)
    diff_ids = tuple(digest_of(tar) for tar in tars)
    config = Blob(_json(_config(architecture, diff_ids)), DOCKER_CONFIG if docker else OCI_CONFIG)
    manifest_type = DOCKER_MANIFEST if docker else OCI_MANIFEST
    manifest = {
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Image(Blob(_json(manifest), manifest_type), config, layers, diff_ids)


def make_index(seed: str, sizes: Sequence[int], architectures: Sequence[str] = ("amd64", "arm64")) -> Index:
    images = tuple(make_image(seed, sizes, architecture=name) for name in architectures)
    entries = [
        image.manifest.descriptor(platform={"os": "linux", "architecture": name})
        for image, name in zip(images, architectures, strict=True)
    ]
    return Index(Blob(_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), OCI_INDEX), images)


def _layer_tar(seed: str, size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(f"{seed}.bin")
        member.size = size
        tar.addfile(member, io.BytesIO(random.Random(seed).randbytes(size)))  # noqa: S311 - content, not a secret
    return out.getvalue()


def _config(architecture: str, diff_ids: Sequence[str]) -> dict[str, Any]:
    return {
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/none"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "test"} for _ in diff_ids],
    }


def _json(value: object) -> bytes:
    # Indented, so that a proxy that formats the JSON again changes the digest and the test fails.
    return json.dumps(value, indent=3).encode()
