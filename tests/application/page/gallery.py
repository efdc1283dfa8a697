"""A service in any row of the trust table, the people who pull through it, and what they see on the page."""

import json
from typing import Any

from application.access.access_request import Caller
from application.page.browse_cache import ImageDetails
from application.page.viewer import Viewer
from domain.authorization import parse_authorization
from domain.digest import Digest
from domain.errors import RegistryError, UpstreamUnreachable
from domain.names import Reference, RepositoryName
from domain.tokens import IssuedToken
from domain.upstreams import Source
from tests.application.support.service import (
    ALICE,
    BOB,
    IMAGE_TYPE,
    NAME,
    PRIVATE,
    REALM,
    Service,
    accounts,
    basic,
)
from tests.application.support.trust_table import ROWS
from tests.application.support.watched import ALICES, BOBS, NOBODYS, watched

SHARED = b"a layer that both images have" * 30
SECRET = b"a layer of the private image only" * 30
CONFIG = json.dumps(
    {"os": "linux", "architecture": "amd64", "config": {"Env": ["A=1"]}, "history": [{"created_by": "COPY . /"}]}
).encode()
PEOPLE = ("nobody", "alice", "bob")
LOGINS = {"alice": ALICE, "bob": BOB}


def entry(content: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def manifest_of(*layers: bytes, **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": IMAGE_TYPE,
        "config": entry(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [entry(layer, "application/vnd.oci.image.layer.v1.tar") for layer in layers],
    }
    return json.dumps(document | more).encode()


PUBLIC_IMAGE, PRIVATE_IMAGE = manifest_of(SHARED), manifest_of(SHARED, SECRET)


class Gallery:
    """The upstream has `public/app`, which anonymous callers can read, and `private/app`, for alice and bob."""

    def __init__(self, row: str, **settings: object) -> None:
        number, scheme, identity, self.has_accounts, _ = ROWS[row]
        self.number, self.scheme = number, scheme
        self.upstream = watched(scheme)
        for name, image, layers in ((NAME, PUBLIC_IMAGE, (SHARED,)), (PRIVATE, PRIVATE_IMAGE, (SHARED, SECRET))):
            self.upstream.put_manifest(str(name), "1", image)
            for blob in (CONFIG, *layers):
                self.upstream.put_blob(str(name), blob)
        settings |= {"skip_auth_proxy": number == 1}
        if identity:
            settings["upstream_identity"] = identity
        if identity == "service":
            settings |= {"upstream_username": "alice", "upstream_password": "right"}
        if self.has_accounts:
            settings["accounts"] = accounts(ALICE, BOB)
        self.service = Service(self.upstream, **settings)

    def run(self, action: Any) -> Any:
        async def whole() -> Any:
            await self.service.warm_up()
            for login, header in [(ALICE, ALICES), (BOB, BOBS), (None, NOBODYS)]:
                token = IssuedToken(header.removeprefix("Bearer "), 10**6, int(self.service.clock.now()))
                await self.service.parts.caller_identities().remember(login, token)
            return await action

        return self.service.run(whole())

    def header(self, person: str) -> str | None:
        """The Authorization with which the person pulls in this row."""
        if self.has_accounts or self.scheme == "basic":
            return basic(LOGINS[person]) if person in LOGINS and self.number not in {2, 5} else None
        if self.scheme == "none" or self.number == 5:
            return None
        of_anonymous = NOBODYS if self.number == 1 else f"Bearer {self.service.own_token()}"
        return {"alice": ALICES, "bob": BOBS}.get(person, of_anonymous)

    async def pull(self, person: str, name: RepositoryName = NAME, *blobs: bytes) -> bool:
        """Pull the image as this person, and these of its blobs. Returns whether it was allowed."""
        header = self.header(person)
        try:
            await self.service.manifest(header, name)
            for blob in blobs:
                assert await self.service.blob(header, name, Digest.of(blob)) == blob
        except RegistryError:
            return False
        finally:
            await self.service.parts.downloads().finished()
            await self.service.parts.background().close()
            await self.service.parts.eviction().flush()
        return True

    async def viewer(self, person: str) -> Viewer:
        """The person as a viewer of the page: with a login only if the mirror has accounts."""
        header = basic(LOGINS[person]) if person in LOGINS else None
        return await self.service.parts.identify_viewer()(Caller(parse_authorization(header), REALM, "192.0.2.1"))

    def source(self, name: RepositoryName = NAME) -> Source:
        return Source(self.service.parts.upstream(), name)

    async def image(self, person: str, name: RepositoryName = NAME, reference: str = "1") -> ImageDetails | None:
        browse = self.service.parts.browse_cache()
        return await browse.image(await self.viewer(person), self.source(name), Reference.parse(reference))

    async def names(self, person: str) -> list[str]:
        """All names on the page."""
        page = await self.service.parts.browse_cache().repositories(
            await self.viewer(person), self.service.parts.upstreams().upstreams
        )
        assert page.following is None
        return [str(entry.source.repository) for entry in page.entries]

    async def tags(self, person: str, name: RepositoryName = NAME) -> list[str] | None:
        page = await self.service.parts.browse_cache().tags(await self.viewer(person), self.source(name))
        return None if page is None else [str(one.key.tag) for one in page.tags]

    async def is_served(self, person: str, name: RepositoryName, blob: bytes | None = None) -> bool:
        """Whether the registry API gives the image, or one of its blobs, while the upstream cannot be asked."""
        header = self.header(person if self.has_accounts else "nobody")
        self.upstream.fault = UpstreamUnreachable("gone")
        try:
            if blob is None:
                await self.service.manifest(header, name)
            else:
                await self.service.blob(header, name, Digest.of(blob))
        except RegistryError:
            return False
        finally:
            self.upstream.fault = None
        return True
