"""Why the object store failed, in one line for operators."""

import re

_LONGEST = 300
"""Characters."""
_REQUEST = re.compile(r"Error performing (?P<method>[A-Z]+) (?P<server>https?://[^/\s?]+)")
_METADATA = re.compile(r"https?://(?:169\.254\.|metadata\.google\.internal)")
_STATUS = re.compile(r"status code: (?P<status>[0-9]{3}(?: [A-Za-z]+)*)")
_CODE = re.compile(r"<Code>(?P<code>[A-Za-z0-9]{1,64})</Code>")
_CONNECT = "kind: Connect"
_SYSTEM = re.compile(r'message: "(?P<message>[^"]{1,100})"')
_ADDRESS = re.compile(r"https?://\S+|\bfor path \S+|\bpath \S+")


def explained(error: Exception) -> str:
    """The reason without the names of objects, which contain digests, and without the query of an address, which can
    contain a signature. obstore gives the details only in the text of its exceptions.
    """
    text = str(error)
    request = _REQUEST.search(text)
    if not request:
        return _ADDRESS.sub("", text.strip().partition("\n")[0])[:_LONGEST].strip()
    if _METADATA.match(request["server"]):
        return "there is no login for it: neither the variables of the store nor the machine provide one"
    return f"{request['server']} {_answer(text)}"


def _answer(text: str) -> str:
    """What the server answered, or why it did not."""
    if status := _STATUS.search(text):
        code = _CODE.search(text)
        return f"answered {status['status']}" + (f" ({code['code']})" if code else "")
    if "dns error" in text:
        return "cannot be resolved"
    if "TimedOut" in text or "timed out" in text:
        return "did not answer in time"
    if _CONNECT in text:
        system = _SYSTEM.search(text)
        return f"cannot be reached: {system['message'] if system else 'the TLS handshake failed'}"
    return "closed the connection, or sent a response that is not valid"
