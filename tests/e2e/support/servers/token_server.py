"""The token server of the tests: `token_server.py SETTINGS.json`, a separate program with one log line per request.

It signs tokens that docker-registry 2.8 accepts (RS256 with the certificate in `x5c`), has accounts with the
repository prefixes that each may read, and supports both forms of the endpoint.
"""

import base64
import json
import secrets
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

SETTINGS = json.loads(Path(sys.argv[1]).read_text())
KEY = RSAKey.import_key(Path(SETTINGS["key"]).read_text())
CERTIFICATE = "".join(Path(SETTINGS["certificate"]).read_text().split("-----")[2].split())
REFRESH: dict[str, str] = {}  # refresh token -> account


class RefusedError(Exception):
    """The credentials are wrong."""


def account_from_basic(header: str | None) -> str | None:
    if header is None:
        return None
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise RefusedError
    name, _, password = base64.b64decode(encoded).decode().partition(":")
    return checked(name, password)


def account_from_form(form: dict[str, list[str]]) -> str | None:
    if form.get("grant_type") == ["refresh_token"]:
        account = REFRESH.get(form["refresh_token"][0])
        if account is None:
            raise RefusedError
        return account
    return checked(form.get("username", [""])[0], form.get("password", [""])[0])


def checked(name: str, password: str) -> str:
    if SETTINGS["accounts"].get(name) != password:
        raise RefusedError
    return name


def granted(scope: str, account: str | None) -> dict[str, object] | None:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    if (kind, name) == ("registry", "catalog"):
        return {"type": kind, "name": name, "actions": ["*"]}
    for prefix, readers in SETTINGS["repositories"].items():
        if kind == "repository" and name.startswith(prefix) and ("*" in readers or account in readers):
            return {"type": kind, "name": name, "actions": [a for a in actions.split(",") if a == "pull"]}
    return None


def sign(account: str | None, service: str, scopes: list[str]) -> dict[str, object]:
    now = int(time.time())
    claims = {
        "iss": SETTINGS["issuer"],
        "sub": account or "",
        "aud": service,
        "iat": now,
        "nbf": now - 10,
        "exp": now + SETTINGS["lifetime"],
        "jti": secrets.token_hex(8),
        "access": [grant for scope in scopes if (grant := granted(scope, account))],
    }
    token = jwt.encode({"alg": "RS256", "x5c": [CERTIFICATE]}, claims, KEY, algorithms=["RS256"])
    issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    return {"token": token, "access_token": token, "expires_in": SETTINGS["lifetime"], "issued_at": issued}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        header = self.headers.get("Authorization")
        self.give(query, lambda: account_from_basic(header), credentials=header is not None)

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())
        self.give(form, lambda: account_from_form(form), credentials=True)

    def give(self, asked: dict[str, list[str]], identify, *, credentials: bool) -> None:
        scopes = [scope for value in asked.get("scope", []) for scope in value.split(" ") if scope]
        account, status, answer = None, 200, {}
        try:
            account = identify()
            answer = sign(account, asked.get("service", [""])[0], scopes)
            offline = asked.get("offline_token") == ["true"] or asked.get("access_type") == ["offline"]
            if account and offline:
                answer["refresh_token"] = secrets.token_hex(16)
                REFRESH[str(answer["refresh_token"])] = account
        except RefusedError:
            status, answer = 401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong credentials"}]}
        note = {
            "method": self.command, "path": self.path.partition("?")[0], "status": status, "account": account,
            "credentials": credentials, "scopes": scopes, "service": asked.get("service"),
            "agent": self.headers.get("User-Agent", ""),
        }  # fmt: skip
        # One write: print writes the line end separately, so lines of several threads could mix.
        sys.stdout.write(json.dumps(note) + "\n")
        sys.stdout.flush()
        self.answer(status, json.dumps(answer).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Does nothing: `give` writes the log line."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", SETTINGS["port"]), Handler).serve_forever()
