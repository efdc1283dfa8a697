"""The settings of the shared store and the shared index."""

from pathlib import Path

import pytest

from domain.redis_address import RedisAddress, RedisKind
from entrypoints.settings.values import Secret
from tests.entrypoints.environment import Load, refusal

SHARED = {"SHARED_STORE": "s3://images", "SHARED_INDEX": "redis://index.test", "SERVER_SECRET": "s" * 32}


def _without(name: str) -> dict[str, str]:
    return {other: text for other, text in SHARED.items() if other != name}


def test_a_service_without_these_settings_shares_nothing(load: Load) -> None:
    assert not load().is_shared
    assert load(**SHARED).is_shared


@pytest.mark.parametrize(
    "text", ["s3://images", "s3://my.images-1/a/b", "gs://my_images", "az://box/a=b", "file:///srv/images"]
)
def test_each_kind_of_store_is_accepted(load: Load, text: str) -> None:
    assert load(**SHARED | {"SHARED_STORE": text}).shared_store == text
    assert load(**SHARED | {"SHARED_STORE": f"{text}/"}).shared_store == text


@pytest.mark.parametrize(
    "text",
    [
        "images",
        "s3:images",
        "s3://",
        "s3:///images",
        "s3://ab",
        "s3://images//a",
        "s3://images/../other",
        "s3://images/a b",
        "S3://images",
        "https://images.test/a",
        "file://host/images",
        "file:///",
        "file://",
        "memory:///",
    ],
)
def test_an_invalid_store_is_refused_with_what_is_accepted(load: Load, text: str) -> None:
    line = refusal(load, **SHARED | {"SHARED_STORE": text})
    assert line.startswith("SHARED_STORE: got ")
    assert "; takes s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, " in line


def test_each_form_of_an_index_is_accepted(load: Load) -> None:
    for text, kind in {
        "rediss://ann:hunter2@index.test/3": RedisKind.SINGLE,
        "redis+sentinel://one.test,two.test:5000/main": RedisKind.SENTINEL,
        "redis+cluster://one.test,two.test": RedisKind.CLUSTER,
    }.items():
        address = load(**SHARED | {"SHARED_INDEX": text}).shared_index
        assert address == RedisAddress.parse(text)
        assert address.kind is kind


@pytest.mark.parametrize(
    "text",
    [
        "index.test",
        "redis://",
        "redis://index.test:0",
        "redis://index.test:65536",
        "redis://index.test/x",
        "redis://one.test,two.test",
        "redis://index.test?db=1",
        "redis+sentinel://one.test",
        "redis+sentinel://one.test/ma in",
        "redis+cluster://one.test/1",
        "rediss://index.test?ca_file=/none.pem",
        "unix:///run/redis.sock",
    ],
)
def test_an_invalid_index_is_refused_with_what_is_accepted(load: Load, text: str) -> None:
    line = refusal(load, **SHARED | {"SHARED_INDEX": text})
    assert line.startswith("SHARED_INDEX: got ")
    assert "takes redis://HOST:PORT/DATABASE, " in line


@pytest.mark.parametrize(
    "text",
    [
        "http://ann:hunter2@index.test",
        "redis://ann:hunter2@index.test:99999",
        "redis://:hun/hunter2@index.test",
        "redis://:hun?hunter2@index.test",
        "redis://:hun#hunter2@index.test",
        "redis://ann:hunter2",
        "redis://:hunter2/1",
        "hunter2",
        "redis://index.test?password=hunter2",
        "redis://:\nhunter2@index.test",
    ],
)
def test_a_login_in_an_invalid_address_is_not_shown(load: Load, text: str) -> None:
    for name in ("SHARED_STORE", "SHARED_INDEX"):
        line = refusal(load, **SHARED | {name: text})
        assert line.startswith(f"{name}: got ")
        assert "hunter2" not in line


def test_the_password_can_be_in_a_file_and_is_never_shown(load: Load, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("hunter2\n")
    settings = load(**SHARED, SHARED_INDEX_PASSWORD_FILE=str(file))
    assert settings.shared_index_password == Secret("hunter2")
    in_address = load(**SHARED | {"SHARED_INDEX": "redis://ann:hunter2@index.test"})
    for shown in (repr(settings), repr(in_address), str(in_address.shared_index)):
        assert "hunter2" not in shown


def test_a_password_in_the_address_excludes_the_setting(load: Load) -> None:
    line = refusal(load, **SHARED | {"SHARED_INDEX": "redis://:a@index.test", "SHARED_INDEX_PASSWORD": "b"})
    assert line == "SHARED_INDEX_PASSWORD: is set, and SHARED_INDEX contains a password; takes one of them"


def test_store_and_index_are_set_together(load: Load) -> None:
    assert refusal(load, **_without("SHARED_INDEX")) == (
        "SHARED_STORE: got 's3://images'; takes SHARED_INDEX as well, or neither of them"
    )
    assert refusal(load, **_without("SHARED_STORE") | {"SHARED_INDEX": "redis://:hunter2@index.test"}) == (
        "SHARED_INDEX: got 'index.test:6379'; takes SHARED_STORE as well, or neither of them"
    )


def test_replicas_need_a_common_secret(load: Load) -> None:
    assert refusal(load, **_without("SERVER_SECRET")) == (
        "SERVER_SECRET: is not set; takes the same 32 bytes or more on every replica if SHARED_STORE is set"
    )


def test_replicas_need_a_folder(load: Load) -> None:
    assert refusal(load, **SHARED, CACHE_DIR="off") == (
        "CACHE_DIR: got 'off'; takes a folder if SHARED_STORE is set, because downloads are written there"
    )


@pytest.mark.parametrize("text", ["0", "1023KiB", "100%", "much"])
def test_an_invalid_shared_size_is_refused(load: Load, text: str) -> None:
    assert refusal(load, SHARED_SIZE=text).startswith(f"SHARED_SIZE: got {text!r}; takes ")
