"""The TLS certificate of the service, which can be replaced while the service runs."""

import ssl

from sanic.http.tls.context import create_context

from entrypoints.settings import Settings, SettingsError


class Certificates:
    """Created before the workers are forked, so that a worker that replaces a dead one does not read the files again.

    A certificate that is loaded into the listening context does not replace one whose key has another type: OpenSSL
    keeps both, and may still show clients the old one. So each connection begins with the listening context, and the
    SNI callback then switches it to the current context (RFC 6066 section 3).
    """

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError."""
        self.listening = read_certificate(settings)
        self.current = self.listening
        """The certificate for all new connections."""
        self.listening.sni_callback = self._switch_to_current

    def _switch_to_current(self, connection: ssl.SSLObject, _name: str | None, _listening: ssl.SSLContext) -> None:
        connection.context = self.current


def read_certificate(settings: Settings) -> ssl.SSLContext:
    """Read the files of TLS_CERT and TLS_KEY. Raises SettingsError."""
    try:
        # Without a passphrase, OpenSSL would ask for one on the terminal.
        return create_context(str(settings.tls_cert), str(settings.tls_key), password="")
    except (OSError, ValueError) as error:
        raise SettingsError(f"TLS_CERT, TLS_KEY: cannot be read: {error}") from error
