"""Cloud Storage, as far as it is needed. The only importer of its client."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from bridge.errors import BridgeError

CALL_SECONDS = 10.0
_REMEDY = "grant the service account roles/storage.objectUser on it, or correct the name"

T = TypeVar("T")


class BucketError(BridgeError):
    """The bucket could not be used just now, in words."""


class Conflict(BridgeError):
    """The object is not the one that was to be replaced: somebody else has written it."""


class Stored(NamedTuple):
    """One object. `generation`: another number after each change."""

    data: bytes
    generation: int


class Bucket:
    """Safe from any thread. Every call blocks, for `CALL_SECONDS` and a little at most, is never
    repeated by itself, and raises BucketError."""

    def __init__(self, name: str, client: Any) -> None:
        self.name = name
        self._client = client
        self._bucket = client.bucket(name)

    def get(self, path: str) -> Stored | None:
        """None where there is no such object."""
        from google.api_core.exceptions import NotFound

        def load() -> Stored | None:
            blob = self._bucket.blob(path)
            try:
                data = blob.download_as_bytes(retry=None, timeout=CALL_SECONDS)
            except NotFound:
                return None
            return Stored(data, int(blob.generation))

        return self._call(load)

    def put(self, path: str, data: bytes, generation: int | None = None) -> int:
        """Write an object; answers its generation. `generation`: of the object that it is to
        replace, 0 for none; without it whatever is there. Raises Conflict."""

        def store() -> int:
            blob = self._bucket.blob(path)
            blob.upload_from_string(
                data,
                content_type="application/octet-stream",
                if_generation_match=generation,
                checksum="crc32c",
                retry=None,
                timeout=CALL_SECONDS,
            )
            return int(blob.generation)

        return self._call(store)

    def delete(self, path: str, generation: int | None = None) -> None:
        """One that is not there is deleted already. Raises Conflict."""
        from google.api_core.exceptions import NotFound

        def remove() -> None:
            with suppress(NotFound):
                self._bucket.blob(path).delete(
                    if_generation_match=generation, retry=None, timeout=CALL_SECONDS
                )

        self._call(remove)

    def names(self, prefix: str) -> list[str]:
        """Of all objects whose names begin so."""

        def collect() -> list[str]:
            blobs = self._client.list_blobs(
                self.name, prefix=prefix, retry=None, timeout=CALL_SECONDS
            )
            return [blob.name for blob in blobs]

        return self._call(collect)

    def _call(self, call: Callable[[], T]) -> T:
        from google.api_core.exceptions import (
            Forbidden,
            GoogleAPICallError,
            NotFound,
            PreconditionFailed,
        )
        from google.auth.exceptions import GoogleAuthError
        from requests.exceptions import RequestException

        try:
            return call()
        except PreconditionFailed as error:
            raise Conflict(str(error)) from error
        except (Forbidden, NotFound) as error:
            raise BucketError(
                f"the bucket {self.name} cannot be used: {error.message}. Remedy: {_REMEDY}"
            ) from error
        except (GoogleAPICallError, GoogleAuthError, RequestException) as error:
            raise BucketError(f"the bucket {self.name} cannot be reached: {error}") from error
