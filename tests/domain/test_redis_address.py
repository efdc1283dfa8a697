"""Addresses of Redis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.redis_address import RedisAddress, RedisKind

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("redis://cache", RedisAddress(RedisKind.SINGLE, (("cache", 6379),))),
        ("redis://cache:7000/", RedisAddress(RedisKind.SINGLE, (("cache", 7000),))),
        ("redis://[2001:db8::1]:7000/3", RedisAddress(RedisKind.SINGLE, (("2001:db8::1", 7000),), database=3)),
        ("redis://:pass@cache", RedisAddress(RedisKind.SINGLE, (("cache", 6379),), password="pass")),
        (
            "rediss://mirror:p%40ss%3A%2F@cache/1?ca_file=/etc/ca.pem",
            RedisAddress(
                RedisKind.SINGLE,
                (("cache", 6379),),
                database=1,
                username="mirror",
                password="p@ss:/",
                uses_tls=True,
                ca_file="/etc/ca.pem",
            ),
        ),
        (
            "redis+sentinel://one,two:5000/main/2",
            RedisAddress(RedisKind.SENTINEL, (("one", 26379), ("two", 5000)), service="main", database=2),
        ),
        (
            "rediss+sentinel://u:p@one/main?sentinel_auth=yes",
            RedisAddress(
                RedisKind.SENTINEL,
                (("one", 26379),),
                service="main",
                username="u",
                password="p",
                is_sentinel_login=True,
                uses_tls=True,
            ),
        ),
        ("redis+cluster://one,two:7001", RedisAddress(RedisKind.CLUSTER, (("one", 6379), ("two", 7001)))),
    ],
)
def test_an_address_is_read(text: str, address: RedisAddress) -> None:
    assert RedisAddress.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cache:6379",
        f"http://user:{SECRET}@cache",
        f"redis+://user:{SECRET}@cache",
        f"redis+other://user:{SECRET}@cache",
        f"redis://user:{SECRET}@",
        f"redis://user:{SECRET}@cache:port",
        f"redis://user:{SECRET}@cache:0",
        f"redis://user:{SECRET}@cache:70000",
        f"redis://user:{SECRET}@one,two",
        f"redis://user:{SECRET}@[::1",
        f"redis://user:{SECRET}@cache/name",
        f"redis://user:{SECRET}@cache/-1",
        f"redis://user:{SECRET}@cache/²",
        f"redis://user:{SECRET}#@cache",
        f"redis://user:{SECRET}@cache?password={SECRET}",
        f"redis://user:{SECRET}@cache?ca_file=/etc/ca.pem",
        f"redis+sentinel://user:{SECRET}@one",
        f"redis+sentinel://user:{SECRET}@one/",
        f"redis+sentinel://user:{SECRET}@one/main/name",
        f"redis+sentinel://user:{SECRET}@one,/main",
        f"redis+sentinel://user:{SECRET}@one/main?sentinel_auth=maybe",
        f"redis+cluster://user:{SECRET}@one/1",
    ],
)
def test_what_is_no_address_is_refused_without_the_password(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w") as refused:
        RedisAddress.parse(text)
    assert SECRET not in str(refused.value)


def test_messages_show_the_hosts_and_not_the_login() -> None:
    address = RedisAddress.parse(f"redis+sentinel://user:{SECRET}@[::1],two:5000/main")
    assert str(address) == "[::1]:26379,two:5000/main"
    assert SECRET not in repr(address)


@given(text=st.text(), scheme=st.sampled_from(("redis", "rediss", "redis+sentinel", "redis+cluster")))
def test_every_text_is_read_or_refused(text: str, scheme: str) -> None:
    for address in (text, f"{scheme}://{text}"):
        try:
            RedisAddress.parse(address)
        except ValueError:
            continue
