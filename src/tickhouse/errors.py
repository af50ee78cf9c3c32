"""Errors, classed by what the caller must do.

```
TickhouseError
├── ConfigError              an operator acts; never retried
│   └── BusyError            another process holds what this one needs
├── TransientError           try again; carries `retry_after_s`
├── RefusedError             a backend refuses (permission, disk full): stop, keep the position
├── FeedClosedError          a feed ended the connection: close the session, reconnect
├── ObjectExistsError        put-if-absent found an object: read it, adopt it
├── ObjectMissingError       no object under that key
└── CorruptError             stored bytes are not what was written: quarantine, alarm
    ├── CorruptObjectError   … in the lake: names the key
    └── CorruptLogError      … in the log: names topic, partition and offset
```

A message says where, what was found and what to do.
"""


class TickhouseError(Exception):
    """Base of every error that tickhouse raises on purpose."""


class ConfigError(TickhouseError):
    """The configuration or the environment is wrong; an operator acts, nothing is retried."""


class BusyError(ConfigError):
    """Another process holds the lock that this one needs."""


class TransientError(TickhouseError):
    """A fault that is expected to pass."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RefusedError(TickhouseError):
    """A backend refuses to store: permission denied, disk or bucket full. Position is kept."""


class FeedClosedError(TickhouseError):
    """The feed ended the connection; `reason` goes into the session's `closed` event."""

    def __init__(self, reason: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class ObjectExistsError(TickhouseError):
    """An object with this key is already in the store."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: the object exists already")
        self.key = key


class ObjectMissingError(TickhouseError):
    """No object with this key is in the store."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key}: no such object")
        self.key = key


class CorruptError(TickhouseError):
    """Stored bytes are not what was written."""


class CorruptObjectError(CorruptError):
    """A bronze object is truncated, altered or not an object of ours."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class CorruptLogError(CorruptError):
    """A batch in the log does not match its checksum or cannot be decoded."""

    def __init__(self, topic: str, part: int, offset: int, reason: str) -> None:
        super().__init__(f"{topic}[{part}]@{offset}: {reason}")
        self.topic = topic
        self.part = part
        self.offset = offset
        self.reason = reason
