import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.shared.object_layout import (
    digest_of_part,
    digest_of_record,
    is_possible_part,
    parse_record,
    part_key,
    print_record,
    record_key,
)
from application.ports.shared import SharedPart, SharedRecord
from domain.digest import Digest
from domain.part_layout import LARGEST_PART_BYTES
from tests.contracts.storage import HUB, QUAY

DIGEST = Digest.of(b"a layer")
HASH = DIGEST.encoded
INLINE = SharedRecord(7, frozenset({HUB.fingerprint}), is_public=False, content=b"a layer")


def part(offset: int, size: int, **changes: Any) -> SharedPart:
    return replace(SharedPart(part_key(HUB, DIGEST, "lease:1", offset), offset, size, HASH), **changes)


IN_PARTS = SharedRecord(5, frozenset(), is_public=True, parts=(part(0, 3), part(3, 2)))


@st.composite
def records(draw: st.DrawFn) -> SharedRecord:
    senders = draw(st.frozensets(st.sampled_from([HUB.fingerprint, QUAY.fingerprint])))
    is_public = draw(st.booleans())
    if draw(st.booleans()):
        content = draw(st.binary(max_size=300))
        return SharedRecord(len(content), senders, is_public, content)
    parts, offset = [], 0
    for size in draw(st.lists(st.integers(1, LARGEST_PART_BYTES), min_size=1, max_size=5)):
        parts.append(part(offset, size))
        offset += size
    return SharedRecord(offset, senders, is_public, parts=tuple(parts))


@given(records())
def test_a_printed_record_is_parsed(record: SharedRecord) -> None:
    assert parse_record(DIGEST, print_record(record)) == record


@given(records(), st.data())
def test_a_record_with_changed_bytes_is_refused_or_is_consistent(record: SharedRecord, data: st.DataObject) -> None:
    content = bytearray(print_record(record))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    assert_consistent(parse_record(DIGEST, bytes(content)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "version": st.just(1) | JSON,
            "size": st.integers(-2, 9) | JSON,
            "senders": st.lists(st.just(HUB.fingerprint) | JSON, max_size=3) | JSON,
            "is_public": st.booleans() | JSON,
            "parts": st.none()
            | st.lists(
                st.just([part(0, 3).key, 0, 3, HASH]) | st.lists(JSON, min_size=4, max_size=4) | JSON, max_size=3
            )
            | JSON,
        },
    ),
    st.binary(max_size=9),
)
def test_nonsense_is_refused_or_is_a_consistent_record(line: dict[str, Any], content: bytes) -> None:
    assert_consistent(parse_record(DIGEST, json.dumps(line).encode() + b"\n" + content))


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_not_a_record(content: bytes) -> None:
    assert parse_record(DIGEST, content) is None


def assert_consistent(record: SharedRecord | None) -> None:
    if record is None:
        return
    assert all(isinstance(each, str) and re.fullmatch("[0-9a-f]{16}", each) for each in record.senders)
    assert isinstance(record.is_public, bool)
    if record.content is not None:
        assert (len(record.content), record.parts) == (record.size, ())
        return
    assert sum(each.size for each in record.parts) == record.size
    assert all(is_possible_part(each) and digest_of_part(each.key) == DIGEST for each in record.parts)


def changed(record: SharedRecord, **members: Any) -> bytes:
    line, _, content = print_record(record).partition(b"\n")
    return json.dumps({**json.loads(line), **members}).encode() + b"\n" + content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(print_record(INLINE)[:-1], id="shorter content"),
        pytest.param(print_record(INLINE) + b"x", id="longer content"),
        pytest.param(print_record(INLINE).partition(b"\n")[0], id="no content"),
        pytest.param(changed(INLINE, version=2), id="a later version"),
        pytest.param(changed(INLINE, version="1"), id="a version of another type"),
        pytest.param(changed(INLINE, size=7.0), id="a size of another type"),
        pytest.param(changed(INLINE, size=True), id="a size that is true"),
        pytest.param(changed(INLINE, senders=["../x"]), id="a sender that is no fingerprint"),
        pytest.param(changed(INLINE, senders={HUB.fingerprint: 1}), id="senders of another type"),
        pytest.param(changed(INLINE, is_public=1), id="is_public of another type"),
        pytest.param(changed(IN_PARTS, size=6), id="parts that end early"),
        pytest.param(changed(IN_PARTS, size=4), id="parts that end late"),
        pytest.param(changed(IN_PARTS, parts=[]), id="no parts"),
        pytest.param(print_record(replace(IN_PARTS, parts=(part(0, 3), part(2, 3)))), id="parts that overlap"),
        pytest.param(print_record(replace(IN_PARTS, parts=(part(0, 2), part(3, 3)))), id="a gap between parts"),
        pytest.param(
            print_record(replace(IN_PARTS, parts=(part(0, 5, key=part_key(HUB, DIGEST, "lease:1", 1)),))),
            id="another offset in the name",
        ),
        pytest.param(print_record(replace(IN_PARTS, parts=(part(0, 5, sha256=HASH[1:]),))), id="a short hash"),
        pytest.param(
            print_record(
                replace(IN_PARTS, parts=(part(0, 5, key=part_key(HUB, Digest.of(b"another"), "lease:1", 0)),))
            ),
            id="a part of another blob",
        ),
        pytest.param(
            print_record(replace(IN_PARTS, size=LARGEST_PART_BYTES + 1, parts=(part(0, LARGEST_PART_BYTES + 1),))),
            id="a part that is too large",
        ),
    ],
)
def test_an_object_that_is_not_a_record_of_this_digest_is_refused(content: bytes) -> None:
    assert parse_record(DIGEST, content) is None


def test_unknown_members_of_a_record_are_ignored() -> None:
    assert parse_record(DIGEST, changed(INLINE, added_later=1)) == INLINE


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_names_of_records_and_parts_contain_the_digest(algorithm: str) -> None:
    digest = Digest.of(b"a layer", algorithm)
    assert digest_of_record(record_key(digest)) == digest
    assert digest_of_part(part_key(HUB, digest, "6f1c:0d9a3b", 0)) == digest
    assert digest_of_record(part_key(HUB, digest, "lease", 0)) is None
    assert digest_of_part(record_key(digest)) is None


@pytest.mark.parametrize(
    "key",
    [
        "",
        "content",
        f"content/sha256/00/{HASH}",
        f"content/sha256/{HASH[:2]}/{HASH[:-1]}",
        f"content/sha256/{HASH[:2]}/{HASH.upper()}",
        f"content/md5/{HASH[:2]}/{HASH}",
        f"content/sha256/{HASH[:2]}/{HASH}.tmp",
        f"content/sha256/{HASH[:2]}/{HASH}\n",
        f"other/sha256/{HASH[:2]}/{HASH}",
        f"parts/sha256/{HASH[:2]}/{HASH}/{HUB.fingerprint}/../0",
        f"parts/sha256/{HASH[:2]}/{HASH}/{HUB.fingerprint}/lease/-1",
        f"parts/sha256/{HASH[:2]}/{HASH}/{HUB.fingerprint}/lease/0/0",
        f"parts/sha256/{HASH[:2]}/{HASH}/{HUB.fingerprint}/le ase/0",
        "../../etc/passwd",
    ],
)
def test_other_names_belong_to_no_digest(key: str) -> None:
    assert (digest_of_record(key), digest_of_part(key)) == (None, None)
    assert not is_possible_part(SharedPart(key, 0, 1, HASH))
