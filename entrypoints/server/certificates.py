"""The certificate that clients are shown, which may be renewed while the service runs."""

import ssl

from sanic.http.tls.context import create_context

from entrypoints.settings import Settings, SettingsError


class Certificates:
    """Made before the workers are forked, so that one that takes the place of a dead one needs no file.

    A certificate loaded into the context that is listening would stand beside the old one where their keys are of
    different kinds, and clients might go on being shown the old. So each connection begins with that context, and is
    then handed over to the one of the moment, as for a server with several names (RFC 6066 section 3).
    """

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError."""
        self.listening = read_certificate(settings)
        self._shown = self.listening
        self.listening.sni_callback = self._hand_over

    def show(self, certificate: ssl.SSLContext) -> None:
        """To every connection from now on."""
        self._shown = certificate

    def _hand_over(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        connection.context = self._shown


def read_certificate(settings: Settings) -> ssl.SSLContext:
    """Out of the files of TLS_CERT and TLS_KEY. Raises SettingsError."""
    try:
        # Without a passphrase, OpenSSL would ask the terminal for one.
        return create_context(str(settings.tls_cert), str(settings.tls_key), password="")
    except (OSError, ValueError) as error:
        raise SettingsError(f"TLS_CERT, TLS_KEY: cannot be read: {error}") from error
