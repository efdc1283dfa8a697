"""A program that runs Sanic with one trivial handler, to see how much of the service's time Sanic itself needs.

Arguments: port, size of the body, number of workers, "on" or "off" for Sanic's own access log.
"""

import sys

from sanic import HTTPResponse, Request, Sanic

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def main(port: int, size: int, workers: int, *, access_log: bool) -> None:
    app = Sanic("empty")
    body = b"x" * size

    @app.get("/v2/<path:path>")
    async def give(_: Request, path: str) -> HTTPResponse:
        return HTTPResponse(body, content_type=MANIFEST)

    # The service uses the same start method.
    Sanic.start_method = "fork"
    app.run("127.0.0.1", port, workers=workers, access_log=access_log, motd=False)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:4]), access_log=sys.argv[4] == "on")
