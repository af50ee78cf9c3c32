"""The bucket itself: made once by `init`, and what its owner may let others do there.

The landers' key can put only what is not there yet, and delete nothing.
"""

import ssl
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any, Final, Literal

import obstore

from tickhouse.bronze.s3_client import CONNECT_TIMEOUT_S, DEFAULT_REGION, make_client
from tickhouse.bronze.s3_credentials import find_credentials
from tickhouse.bronze.s3_errors import explained
from tickhouse.bronze.s3_options import S3Options
from tickhouse.errors import TickhouseError, TransientError

_TIMEOUT_S: Final = 2 * CONNECT_TIMEOUT_S
_SIGNED_FOR: Final = timedelta(minutes=5)
_PLACE: Final = (
    '<CreateBucketConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>"
)
_VERSION: Final = "2012-10-17"


class Bucket:
    """A bucket of a service.

    Args:
        options: its name, and who we are there.
    """

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._client = make_client(options, retries=0)

    def is_there(self) -> bool:
        """Whether it exists and we may look at it.

        Raises:
            RefusedError: it is somebody else's, or the key may not look.
            TransientError: try again.
        """
        status, error = self._ask("HEAD", b"")
        if error is not None and status != 404:  # noqa: PLR2004
            raise error
        return error is None

    def create(self) -> None:
        """Make it, in the region of the options.

        Raises:
            RefusedError: the name is taken, or the key may not.
            TransientError: try again.
        """
        region = self._options.region or find_credentials("", "").region or DEFAULT_REGION
        body = b"" if region == DEFAULT_REGION else _PLACE.format(region=region).encode()
        _, error = self._ask("PUT", body)
        if error is not None:
            raise error

    def documents(self) -> dict[str, dict[str, Any]]:
        """Policies and a lifecycle rule for the bucket's owner to apply, by name."""
        return _documents(self._options)

    def _ask(
        self, method: Literal["HEAD", "PUT"], body: bytes
    ) -> tuple[int, TickhouseError | None]:
        url = obstore.sign(self._client, method, "", _SIGNED_FOR)
        request = urllib.request.Request(url, data=body or None, method=method)  # noqa: S310
        place = self._options.url
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=self._tls()) as answer:  # noqa: S310
                return answer.status, None
        except urllib.error.HTTPError as error:
            text = error.read(4096).decode(errors="replace")
            return error.code, explained(place, error.code, text)
        except OSError as error:
            return 0, TransientError(f"{place}: no answer ({error})")

    def _tls(self) -> ssl.SSLContext | None:
        if not self._options.endpoint.startswith("https") and self._options.endpoint:
            return None
        context = ssl.create_default_context()
        if self._options.ca_bundle:
            context.load_verify_locations(self._options.ca_bundle)
        if self._options.insecure_skip_tls_verification:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _documents(options: S3Options) -> dict[str, dict[str, Any]]:
    """MinIO refuses a policy that names `s3:if-none-match`, SeaweedFS never finds it true."""
    is_aws = not options.endpoint
    below = f"{options.prefix}/" if options.prefix else ""
    objects = f"arn:aws:s3:::{options.bucket}/{below}*"
    read = _reading(options, objects, below)
    return {
        "lander-policy": _policy(_putting(objects, is_aws=is_aws), *read),
        "loader-policy": _policy(*read),
        "bucket-policy": _policy(
            *([_no_overwriting(objects)] if is_aws else []), _no_deleting(objects)
        ),
        "lifecycle": _lifecycle(below),
    }


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": _VERSION, "Statement": list(statements)}


def _reading(options: S3Options, objects: str, below: str) -> list[dict[str, Any]]:
    listing: dict[str, Any] = {
        "Sid": "ListTheLake",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": f"arn:aws:s3:::{options.bucket}",
    }
    if below:
        listing["Condition"] = {"StringLike": {"s3:prefix": f"{below}*"}}
    getting = {"Sid": "ReadTheLake", "Effect": "Allow", "Action": "s3:GetObject"}
    return [{**getting, "Resource": objects}, listing]


def _putting(objects: str, *, is_aws: bool) -> dict[str, Any]:
    putting: dict[str, Any] = {
        "Sid": "PutWhatIsNotThereYet",
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": objects,
    }
    if is_aws:
        putting["Condition"] = {"Null": {"s3:if-none-match": "false"}}
    return putting


def _no_overwriting(objects: str) -> dict[str, Any]:
    return {
        "Sid": "NobodyOverwrites",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:PutObject",
        "Resource": objects,
        "Condition": {
            "Null": {"s3:if-none-match": "true"},
            "Bool": {"s3:ObjectCreationOperation": "true"},
        },
    }


def _no_deleting(objects: str) -> dict[str, Any]:
    return {
        "Sid": "NobodyDeletes",
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
        "Resource": objects,
    }


def _lifecycle(below: str) -> dict[str, Any]:
    """Bronze never expires; only what other tools began to upload in parts is cleared away."""
    rule = {
        "ID": "clear-unfinished-uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": below},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
    }
    return {"Rules": [rule]}
