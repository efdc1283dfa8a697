"""Each new connection gets the current certificate, whatever the type of its key."""

import ssl
from pathlib import Path

import pytest

from entrypoints.server.certificates import Certificates, read_certificate
from entrypoints.settings import Settings, SettingsError
from tests.e2e.support.certificates import KeyPair, make_authority, make_signer
from tests.fakes.parts import settings_of


def settings_with(pair: KeyPair) -> Settings:
    return settings_of(tls_cert=str(pair.certificate), tls_key=str(pair.key))


def shown(certificates: Certificates, version: ssl.TLSVersion) -> bytes:
    """The certificate that a client gets, in DER."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    client.minimum_version = client.maximum_version = version
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(down, up)
    theirs = certificates.listening.wrap_bio(up, down, server_side=True)
    open_ends = [ours, theirs]
    while open_ends:
        for end in list(open_ends):
            try:
                end.do_handshake()
                open_ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    return ours.getpeercert(binary_form=True) or b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_new_certificate_is_used_even_if_its_key_has_another_type(tmp_path: Path, version: ssl.TLSVersion) -> None:
    curve, rsa = make_authority(tmp_path).server, make_signer(tmp_path)
    certificates = Certificates(settings_with(curve))
    for pair in (curve, rsa, curve):
        certificates.current = read_certificate(settings_with(pair))
        expected = ssl.PEM_cert_to_DER_cert(pair.certificate.read_text())
        assert shown(certificates, version) == expected


def test_missing_files_are_an_invalid_setting(tmp_path: Path) -> None:
    settings = settings_with(make_signer(tmp_path))
    settings.tls_key.unlink() if settings.tls_key else None
    with pytest.raises(SettingsError, match=r"^TLS_CERT, TLS_KEY: cannot be read"):
        read_certificate(settings)
