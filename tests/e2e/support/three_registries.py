"""A mirror of three real registries: an open one, one with tokens, and one with TLS and htpasswd. The names and tags of
their images are the same, but the content differs.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.support.certificates import KeyPair, PrivateAuthority
from tests.e2e.support.docker_registry import Registry, docker_registry, htpasswd_auth
from tests.e2e.support.upstreams import ACCOUNTS, Content, TokenUpstream, make_content, token_upstream

HUB, QUAY, CORP = "docker.io", "quay.io", "registry.corp.test:5000"
OWN_HOST = "localhost"
"""A host name of the mirror that serves only the company's registry. Other tests use 127.0.0.1."""


@dataclass(frozen=True)
class Registries:
    """`contents` and `upstreams` by the name that clients use; `config` is the settings file of their mirror."""

    contents: dict[str, Content]
    upstreams: dict[str, Registry | TokenUpstream]
    config: Path

    def marks(self) -> dict[str, int]:
        return {name: upstream.mark() for name, upstream in self.upstreams.items()}

    def asked(self, marks: dict[str, int]) -> dict[str, set[str]]:
        """The paths that each upstream was asked for since the marks."""
        return {
            name: {request.path for request in upstream.content_requests(marks[name])}
            for name, upstream in self.upstreams.items()
        }


@contextmanager
def registries(folder: Path, authority: PrivateAuthority, signer: KeyPair) -> Iterator[Registries]:
    contents = {}
    for number, name in enumerate((HUB, QUAY, CORP)):
        (folder / f"content-{number}").mkdir()
        contents[name] = make_content(folder / f"content-{number}", folder, f"{number}-")
    with ExitStack() as stack:
        hub = stack.enter_context(docker_registry(folder, contents[HUB].folder, "hub"))
        quay = stack.enter_context(token_upstream(folder, contents[QUAY], signer))
        corp = stack.enter_context(
            docker_registry(
                folder, contents[CORP].folder, "corp", auth=htpasswd_auth(folder / "htpasswd"), tls=authority.server
            )
        )
        config = folder / "mirror.toml"
        config.write_text(
            f"""
            [[upstreams]]
            name = "{HUB}"
            url = "{hub.url}"

            [[upstreams]]
            name = "{QUAY}"
            url = "{quay.url}"
            realms = ["{quay.realm_host}"]
            identity = "client"

            [[upstreams]]
            name = "{CORP}"
            names = ["corp"]
            hosts = ["{OWN_HOST}"]
            url = "{corp.url}"
            ca = {json.dumps(str(authority.certificate))}
            username = "alice"
            password = "{ACCOUNTS["alice"]}"
            """
        )
        yield Registries(contents, {HUB: hub, QUAY: quay, CORP: corp}, config)
