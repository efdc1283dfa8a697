"""The token servers of well-known registries are trusted with logins without a setting."""

import pytest

from adapters.public_suffixes import BundledPublicSuffixes
from domain.errors import RealmNotTrusted
from domain.realm_policy import RealmPolicy
from domain.upstreams import Upstream
from entrypoints.settings.values import origin_of_address

POLICY = RealmPolicy(BundledPublicSuffixes())


def check(registry: str, realm: str) -> None:
    POLICY.check(Upstream.at(registry, origin_of_address(registry)), origin_of_address(realm))


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://registry-1.docker.io", "https://auth.docker.io/token"),
        ("https://ghcr.io", "https://ghcr.io/token"),
        ("https://quay.io", "https://quay.io/v2/auth"),
        ("https://gcr.io", "https://gcr.io/v2/token"),
        ("https://us-docker.pkg.dev", "https://us-docker.pkg.dev/v2/token"),
        ("https://registry.k8s.io", "https://registry.k8s.io/token"),
        ("https://public.ecr.aws", "https://public.ecr.aws/token/"),
        ("https://nvcr.io", "https://nvcr.io/proxy_auth"),
        ("https://docker.elastic.co", "https://docker-auth.elastic.co/auth"),
        ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth"),
    ],
)
def test_realm_of_a_well_known_registry_is_trusted_without_a_setting(registry: str, realm: str) -> None:
    check(registry, realm)


@pytest.mark.parametrize(
    ("registry", "realm"),
    [
        ("https://gcr.io", "https://us-docker.pkg.dev/v2/token"),
        ("https://registry.example.com", "https://gitlab.example.org/jwt/auth"),
    ],
)
def test_realm_of_another_domain_needs_a_setting(registry: str, realm: str) -> None:
    with pytest.raises(RealmNotTrusted, match="UPSTREAM_REALMS"):
        check(registry, realm)
