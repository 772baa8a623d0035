"""A folder of an object store, by URI: S3, Google Cloud Storage or Azure.

An object appears whole or not at all, so that nothing is written under another name first. What must not be overwritten
is written under a condition (If-None-Match, If-Match); a store that does not honour conditions is noticed, and `create`
and `replace` then look before they write. A store that does not answer is asked again for PATIENCE.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import parse_qsl, urlsplit

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from orchestration.keep.files import Entry, StorageError, UnreachableError, Version

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutResult, UpdateVersion
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "abfs", "abfss")
#: what may stand behind the ? of an s3 URI
OPTIONS = ("scheme", "endpoint_override", "region", "anonymous")
PATIENCE = timedelta(seconds=120)
#: that an object was used is noted by an empty one under USED, once it is so old, in seconds
NOTED_AFTER, USED = 24 * 3600.0, ".used/"


class _Config(TypedDict, total=False):
    endpoint: str
    region: str
    skip_signature: bool


def _open(uri: str, patience: timedelta) -> ObjectStore:
    """The store of a URI such as s3://bucket/stages?scheme=http&endpoint_override=127.0.0.1:9000, which is asked again
    for so long while it does not answer. Raises ValueError."""
    parts = urlsplit(uri)
    if parts.scheme not in SCHEMES:
        raise ValueError(f"{parts.scheme}:// is none of {', '.join(SCHEMES)}")
    if not parts.netloc:
        raise ValueError("it names no bucket")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    allowed = OPTIONS if parts.scheme == "s3" else ()
    if other := sorted(options.keys() - set(allowed)):
        raise ValueError(f"{', '.join(other)}: expected {', '.join(allowed) or 'nothing'} behind the ?")
    config, plain_http = _Config(), options.get("scheme", "https") == "http"
    if "endpoint_override" in options:
        config["endpoint"] = f"{'http' if plain_http else 'https'}://{options['endpoint_override']}"
    if "region" in options:
        config["region"] = options["region"]
    anonymous = options.get("anonymous", "").lower() == "true"
    if anonymous:
        config["skip_signature"] = True
    try:
        return from_url(
            parts._replace(query="").geturl(),
            config=config,  # type: ignore[call-overload]
            client_options={"timeout": "60s", "connect_timeout": "10s", "allow_http": plain_http},
            retry_config={"max_retries": 30, "retry_timeout": patience},
            credential_provider=None if anonymous else _credentials(parts.scheme),
        )
    except BaseError as error:
        raise ValueError(_short(error)) from error


def _credentials(scheme: str) -> Callable[..., object] | None:
    """For S3 those of a profile, which boto3 reads; None where the environment has them. Raises ValueError."""
    files = os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials")
    profile = "AWS_PROFILE" in os.environ or Path(files).expanduser().exists()
    if scheme != "s3" or "AWS_ACCESS_KEY_ID" in os.environ or not profile:
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        raise ValueError(
            "credentials in ~/.aws need boto3 (pip install boto3); or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    try:
        return Boto3CredentialProvider()
    except Exception as error:  # botocore has many for a profile that is not there or half there
        raise ValueError(f"the AWS profile: {_short(error)}") from error


def _short(error: BaseException) -> str:
    """An error's first line; the others are of the library's insides."""
    return str(error).splitlines()[0][:300]


def _refused(put: Callable[[], object]) -> bool:
    try:
        put()
    except (AlreadyExistsError, PreconditionError):
        return True
    return False


def _no_bucket(error: Exception) -> bool:
    return any(word in str(error) for word in ("NoSuchBucket", "ContainerNotFound", "bucket does not exist"))


class ObjectFolder:
    """See `Folder`. A version is an object's entity tag and generation, of which a store may have one alone."""

    def __init__(self, uri: str) -> None:
        self.root = uri.partition("?")[0].rstrip("/")
        self._uri, self._store = uri, _open(uri, PATIENCE)
        self._written: dict[str, float] = {}  # name -> when, of what was read; seconds since the epoch

    def path(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        """Raises StorageError for what the store refuses, UnreachableError where it does not answer."""
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise StorageError(
                f"{self.path(name)}: refused ({_short(error)}). Give credentials that may read and write there by the "
                "environment, for S3 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from error
        except (FileNotFoundError, BaseError) as error:
            # a missing object no caller lets come so far; a listing says of a bucket by its text alone
            if isinstance(error, FileNotFoundError) or _no_bucket(error):
                raise StorageError(f"{self.path(name)}: no such bucket; make it, or correct --stages") from error
            raise UnreachableError(
                f"{self.path(name)}: the store does not answer ({_short(error)}). Check the connection and the URI"
            ) from error

    @cached_property
    def exact(self) -> bool:
        """Whether the store honours conditions; found out once, with an object of its own."""
        name = f".probe/{uuid.uuid4().hex}.json"
        self.write(name, b"1")  # asked again for as long as any other request
        store = _open(self._uri, timedelta(seconds=5))
        try:
            before = _version(obstore.get(store, name).meta)
            kept = _refused(lambda: obstore.put(store, name, b"2", mode="create"))
            after = _version(obstore.put(store, name, b"3", mode=_update(before)))
            same = _refused(lambda: obstore.put(store, name, b"4", mode=_update(before)))
            return kept and same and before != after
        except (BaseError, NotImplementedError):  # as of a server that refuses the headers
            return False
        finally:
            self.delete(name)

    def read(self, name: str) -> bytes | None:
        found = self.read_version(name)
        return None if found is None else found[0]

    def read_version(self, name: str) -> tuple[bytes, Version] | None:
        with self._asking(name):
            try:
                found = obstore.get(self._store, name)
                self._written[name] = found.meta["last_modified"].timestamp()
                return bytes(found.bytes()), _version(found.meta)
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return None

    def write(self, name: str, data: bytes) -> None:
        with self._asking(name):
            obstore.put(self._store, name, data)

    def create(self, name: str, data: bytes) -> Version | None:
        if not self.exact:
            if self.read(name) is None:
                self.write(name, data)
            return self._mine(name, data)
        with self._asking(name):
            try:
                return _version(obstore.put(self._store, name, data, mode="create"))
            except AlreadyExistsError:
                return self._mine(name, data)

    def replace(self, name: str, data: bytes, version: Version) -> Version | None:
        if not self.exact:
            found = self.read_version(name)
            if found is not None and found[1] == version:
                self.write(name, data)
            return self._mine(name, data)
        with self._asking(name):
            try:
                return _version(obstore.put(self._store, name, data, mode=_update(version)))
            except (PreconditionError, AlreadyExistsError):
                return self._mine(name, data)
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return None

    def _mine(self, name: str, data: bytes) -> Version | None:
        """The version of a file that holds `data`, also where the answer to the writing was lost."""
        found = self.read_version(name)
        return found[1] if found is not None and found[0] == data else None

    def move(self, source: str, target: str) -> bool:
        with self._asking(target):
            try:
                obstore.rename(self._store, source, target)
            except FileNotFoundError as error:
                if _no_bucket(error):
                    raise
                return False
        return True

    def delete(self, name: str) -> None:
        """A name with an ending is a file's, others are folders': the store knows no difference."""
        if "." in name.rpartition("/")[2]:
            self._delete([name])
        else:
            self._delete([about["path"] for place in (name, f"{USED}{name}") for about in self._list(place)])

    def _delete(self, names: list[str]) -> None:
        with self._asking(names[0] if names else ""):
            try:
                obstore.delete(self._store, names)
                return
            except FileNotFoundError as error:  # S3 alone does not mind what is gone already
                if _no_bucket(error):
                    raise
            for name in names:
                try:
                    obstore.delete(self._store, name)
                except FileNotFoundError as error:
                    if _no_bucket(error):
                        raise

    def _list(self, below: str) -> Iterator[ObjectMeta]:
        with self._asking(below):
            for part in obstore.list(self._store, below or None):
                yield from part

    def touch(self, name: str) -> None:
        if time.time() - self._written.get(name, time.time()) < NOTED_AFTER:
            return
        self._written[name] = time.time()
        try:
            self.write(f"{USED}{name}", b"")
        except StorageError:
            return

    def exists(self) -> bool:
        """Whether the bucket is there: a folder without files is not told from none."""
        with self._asking(""):
            next(iter(obstore.list(self._store, chunk_size=1)), None)
        return True

    def files(self, below: str = "") -> list[Entry]:
        """`changed` is the time of the last use, where that is known."""
        found: dict[str, Entry] = {}
        used: dict[str, float] = {}
        for place in (below, f"{USED}{below}") if below else ("",):  # the whole folder has everything
            for about in self._list(place):
                name, changed = about["path"], about["last_modified"].timestamp()
                if name.startswith(USED):
                    used[name.removeprefix(USED)] = changed
                else:
                    found[name] = Entry(name, about["size"], changed)
        entries = (Entry(name, e.size, max(e.changed, used.get(name, 0.0))) for name, e in found.items())
        return sorted(entries, key=lambda entry: entry.name)


def _version(about: ObjectMeta | PutResult) -> Version:
    return about["e_tag"] or "", about["version"] or ""


def _update(version: Version) -> UpdateVersion:
    named: UpdateVersion = {}
    if version[0]:
        named["e_tag"] = version[0]
    if version[1]:
        named["version"] = version[1]
    return named
