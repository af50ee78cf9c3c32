"""A bronze object: gzip of JSON lines, its manifest in the gzip header's FEXTRA field (RFC 1952).

Every gzip reader skips the field. The same records give the same bytes: modification time 0,
igzip level 1, manifest keys in a fixed order.
"""

import msgspec


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """What an object holds; `next` is the start of the object that follows it.

    Attributes:
        ver: version of the format, 1.
        topic, topic_id, part: the chain; must agree with the object's key.
        start, next: offsets covered, half-open.
        n: number of records (lines); may be less than `next - start` where offsets hold none.
        gap: retention removed these offsets before they were landed; `n` is 0.
        rx_min, rx_max: receipt times spanned, UNIX nanoseconds UTC; None without envelopes.
        writer: name and version of the software.
        sha256: hex digest over the other fields and the compressed body.
    """

    ver: int
    topic: str
    topic_id: str
    part: int
    start: int
    next: int
    n: int
    gap: bool
    rx_min: int | None
    rx_max: int | None
    writer: str
    sha256: str
