"""What `script/schemathesis` teaches the tool: the media type of uploads, which is the API's own."""

import hashlib

import schemathesis


@schemathesis.serializer("application/vnd.ferrovia.contents")
def contents(ctx, value):
    """A text becomes one content that is what its head says; bytes stay, and what is neither is sent as it looks."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        return repr(value).encode()
    body = value.encode("utf-8", "surrogatepass")
    head = f"sha256:{hashlib.sha256(body).hexdigest()} {len(body)}\n"
    return head.encode() + body
