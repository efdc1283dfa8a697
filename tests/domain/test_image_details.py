"""What manifests and configurations say about an image, if they are right, odd or hostile."""

import json

from hypothesis import given
from hypothesis import strategies as st

from domain.image_details import PARSED_LIMIT, read_image_configuration, read_manifest_details

DIGEST = "sha256:" + "a" * 64
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.just(DIGEST),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("manifests", "layers", "config", "digest", "size", "mediaType", "platform", "os", "annotations"),
                    *("subject", "history", "created_by", "Env", "Labels", "ExposedPorts", "Entrypoint", "empty_layer"),
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_no_document_is_an_error(document: object) -> None:
    content = json.dumps(document).encode()
    details, configuration = read_manifest_details(content), read_image_configuration(content)
    assert (details is None) == (configuration is None) == (not isinstance(document, dict))
    if details:
        assert details.size >= 0


def test_large_documents_are_not_parsed() -> None:
    content = b'{"annotations":{"a":"' + b"x" * PARSED_LIMIT + b'"}}'
    assert read_manifest_details(content) is None
    assert read_image_configuration(content) is None
    assert read_manifest_details(b"[]") is None
    assert read_image_configuration(b"no JSON") is None


def test_texts_and_lists_are_cut() -> None:
    document = {"layers": [{"digest": DIGEST, "size": 1}] * 3000, "annotations": {"a": "x" * 9000}}
    details = read_manifest_details(json.dumps(document).encode())
    assert details
    assert (len(details.layers), len(dict(details.annotations)["a"])) == (500, 2000)


def test_a_configuration_is_read() -> None:
    document = {
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
        "created": "2026-01-02T03:04:05Z",
        "author": "Ann",
        "config": {
            "Entrypoint": ["/bin/sh", "-c"],
            "Cmd": ["run"],
            "User": "app",
            "WorkingDir": "/srv",
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/data": {}},
            "Env": ["A=1", 2],
            "Labels": {"x": "y"},
        },
        "history": [{"created_by": "COPY", "created": "t"}, {"comment": "c", "empty_layer": True}, 3],
    }
    found = read_image_configuration(json.dumps(document).encode())
    assert found
    assert dict(found.facts) == {
        "platform": "linux/arm/v7",
        "created": "2026-01-02T03:04:05Z",
        "author": "Ann",
        "entrypoint": "/bin/sh -c",
        "command": "run",
        "user": "app",
        "folder": "/srv",
        "ports": "80/tcp",
        "volumes": "/data",
    }
    assert (found.environment, found.labels) == (("A=1",), (("x", "y"),))
    assert [(step.command, step.comment, step.has_layer) for step in found.history] == [
        ("COPY", "", True),
        ("", "c", False),
    ]
