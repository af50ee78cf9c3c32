"""What an S3 service's answer means for the caller: try again, stop, or read what is there."""

import re
from typing import Final

from obstore.exceptions import AlreadyExistsError, InvalidPathError

from tickhouse.errors import (
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    TickhouseError,
    TransientError,
)

REFUSED_RANGE: Final = "416 InvalidRange"

PRECONDITION_FAILED: Final = 412
SERVER_ERROR: Final = 500
_PASSING_STATUSES: Final = frozenset({408, 409, 425, 429})
_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_MESSAGE: Final = re.compile(r"<Message>([^<]{1,200})")
_REASON: Final = re.compile(r"(HTTP error: [^\n]*)")
_HTML: Final = re.compile(
    r"<!doctype html|<html|Got invalid list response|ETag Header missing|Received non-partial",
    re.IGNORECASE,
)
_TLS: Final = re.compile(
    r"certificate|UnknownIssuer|InvalidContentType|HandshakeFailure|AlertReceived|NotValidForName"
)

_PASSING_CODES: Final = frozenset(
    {
        *("RequestTimeout", "SlowDown", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),
        *("OperationAborted", "ConditionalRequestConflict", "ClientDisconnected"),
    }
)
_ADVICE: Final = {
    "NoSuchBucket": "There is no such bucket: `tickhouse init` makes it; check its name and region",
    "InvalidBucketName": "That is no name for a bucket",
    "PermanentRedirect": "The bucket is in another region: give ?region=… in the lake's address",
    "AuthorizationHeaderMalformed": "Wrong region or key: give ?region=… in the lake's address",
    "IllegalLocationConstraintException": "Wrong region: give ?region=… in the lake's address",
    "SignatureDoesNotMatch": "The secret is not that of the access key, or a proxy alters requests",
    "InvalidAccessKeyId": "The service does not know this access key",
    "ExpiredToken": "The credentials have expired: renew them",
    "InvalidToken": "The session token is wrong: renew the credentials",
    "RequestTimeTooSkewed": "This machine's clock is wrong: set it",
    "XMinioStorageFull": "The store is full: make room",
    "QuotaExceeded": "The bucket's quota is used up: raise it or make room",
    "XMinioAdminBucketQuotaExceeded": "The bucket's quota is used up: raise it or make room",
    "InsufficientStorage": "The store is full: make room",
    "NotImplemented": "The service lacks what is needed; see docs/s3.md",
    "BucketAlreadyExists": "Somebody else has a bucket of this name: choose another",
    "EntityTooLarge": "The service takes no object of this size: lower land_bytes",
}
_CREDENTIALS: Final = (
    "no credentials were found: set TICKHOUSE_S3_ACCESS_KEY_ID and TICKHOUSE_S3_SECRET_ACCESS_KEY,"
    " or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role (docs/s3.md)"
)
_METADATA_HOSTS: Final = ("//169.254.169.254", "//169.254.170.2", "//169.254.170.23")


def translated(error: Exception, *, where: str, key: str) -> TickhouseError:
    """The error that tells the caller what to do.

    Args:
        error: raised by obstore.
        where: the lake's address, for the message.
        key: the object's, or the folder that was listed.
    """
    text = str(error)
    status, code = _status(text), _first(_CODE, text)
    place = f"{where}: {key}"
    if isinstance(error, AlreadyExistsError) and status == PRECONDITION_FAILED:
        return ObjectExistsError(key)
    if code == "NoSuchKey":
        return ObjectMissingError(key)
    if status is None or any(host in text.partition("\n")[0] for host in _METADATA_HOSTS):
        return _unanswered(error, text, place)
    return explained(place, status, text)


def explained(place: str, status: int, text: str) -> TickhouseError:
    """The same for an answer of the bucket itself."""
    code = _first(_CODE, text)
    if code in _PASSING_CODES or (code not in _ADVICE and _is_passing(status)):
        return TransientError(f"{place}: {_answer(text, status, code)}")
    return _refused(place, text, status, code)


def _is_passing(status: int | None) -> bool:
    """409 is a lost race of two writers: nobody knows yet who won."""
    return status is not None and (status in _PASSING_STATUSES or status >= SERVER_ERROR)


def _status(text: str) -> int | None:
    found = _first(_STATUS, text)
    return int(found) if found else None


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return "" if match is None else match[1]


def _answer(text: str, status: int | None, code: str) -> str:
    message = _first(_MESSAGE, text)
    parts = [str(status or ""), code, f"({message})" if message else ""]
    return "the service answers " + " ".join(filter(None, parts))


def _refused(place: str, text: str, status: int | None, code: str) -> RefusedError:
    if not code and _HTML.search(text):
        return RefusedError(
            f"{place}: {status} with a web page, not an S3 answer. Check the endpoint"
        )
    advice = _ADVICE.get(code, "")
    if not advice and status in (401, 403):
        advice = "The key lacks the permission; see the policy that `tickhouse init` prints"
    if not advice and status == 404:  # noqa: PLR2004 - of an object it would say NoSuchKey
        advice = "No S3 service answers there: check the endpoint"
    return RefusedError(
        ". ".join(filter(None, [f"{place}: {_answer(text, status, code)}", advice]))
    )


def _unanswered(error: Exception, text: str, place: str) -> TickhouseError:
    """Not answered by S3: no credentials, no connection, or somebody else's answer."""
    if any(host in text.partition("\n")[0] for host in _METADATA_HOSTS):
        return RefusedError(f"{place}: {_CREDENTIALS}")
    if isinstance(error, InvalidPathError):
        return RefusedError(f"{place}: {text.splitlines()[0]}. Move that object out of the lake")
    if _HTML.search(text):
        return RefusedError(f"{place}: the answer is not S3's. Check the endpoint")
    if "redirect" in text.lower() and "LOCATION" in text:
        return RefusedError(
            f"{place}: the bucket is elsewhere. Give ?region=… and check the endpoint"
        )
    if _TLS.search(text):
        return RefusedError(
            f"{place}: the endpoint's TLS certificate is not trusted, or it speaks no TLS."
            " Give s3_ca_bundle, or http:// where it is meant to be plain"
        )
    reason = _first(_REASON, text) or text.splitlines()[0]
    return TransientError(f"{place}: no answer ({reason[:200]})")
