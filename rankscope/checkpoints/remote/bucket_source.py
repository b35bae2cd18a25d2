"""Runs in buckets and other places that fsspec reads: ``s3://``, ``gs://``, ``az://``, ``sftp://``."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from rankscope.checkpoints.remote.objects import Changed, Entry
from rankscope.checkpoints.remote.retries import ATTEMPTS, Transient, patiently
from rankscope.errors import RankscopeError, WrongSettingError, printable

T = TypeVar("T")
# What shows that the content of an object changed, by the names that the packages give it.
VERSIONS = (
    *("ETag", "etag", "VersionId", "generation", "md5Hash", "content_md5"),
    *("LastModified", "last_modified", "updated", "mtime", "modified", "created"),
)
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
}
# Without a handler, Python prints what a package logs, such as a traceback for each refusal.
SILENT = logging.NullHandler()
CREDENTIALS = {
    "s3fs": "AWS_ACCESS_KEY_ID, AWS_PROFILE and the role of this machine",
    "gcsfs": "GOOGLE_APPLICATION_CREDENTIALS and the account of this machine",
    "adlfs": "AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY and AZURE_STORAGE_SAS_TOKEN",
}


@dataclass(frozen=True)
class BucketSource:
    """Reads objects through the package that fsspec has for a scheme."""

    scheme: str

    def read(self, entry: Entry, start: int, stop: int) -> bytes:
        """Bytes ``start:stop`` of an object; see `Source`.

        Its version is compared after reading: what changed before that is not used.
        """
        address = f"{self.scheme}://{entry.where.lstrip('/')}"

        def part() -> bytes:
            files = self._files()
            content: bytes = files.cat_file(entry.where, start=start, end=stop)
            files.invalidate_cache()
            about = files.info(entry.where)
            is_same = about.get("size") == entry.size and _agree(entry.version, about)
            if not is_same or len(content) != stop - start:
                raise Changed("its size or version differs")
            return content

        return self._patiently(part, address)

    def listed(self, address: str) -> tuple[dict[str, Entry], bool]:
        """The objects below an address by their paths, and whether it is a single object."""

        def found() -> tuple[dict[str, Entry], bool]:
            files = self._files()
            files.invalidate_cache()
            root = str(files._strip_protocol(f"{self.scheme}://{address}")).rstrip("/")
            listing: Mapping[str, Any] = files.find(root, detail=True)
            if set(listing) == {root}:
                return {root.rpartition("/")[2]: _entry(root, listing[root])}, True
            if not listing:
                raise FileNotFoundError(root)
            return {
                name.removeprefix(f"{root}/"): _entry(name, about)
                for name, about in listing.items()
                if name.startswith(f"{root}/") and not name.endswith("/")
            }, False

        return self._patiently(found, f"{self.scheme}://{address}")

    def _files(self) -> Any:
        """The file system of fsspec.

        Raises
        ------
        WrongSettingError
            If no package for the scheme is installed, or there is none.
        """
        package = PACKAGES.get(self.scheme, "")
        needed = " ".join(filter(None, ('"rankscope[remote]"', package)))
        logging.getLogger(package or "fsspec").addHandler(SILENT)
        try:
            import fsspec  # type: ignore[import-untyped]

            return fsspec.filesystem(self.scheme)
        except ImportError:
            message = f"reading {self.scheme}:// needs more packages: pip install {needed}"
            raise WrongSettingError(message) from None
        except (ValueError, TypeError) as error:  # a TypeError if it would need a host or a login
            message = f"{self.scheme}:// is not a kind of address that is read"
            raise WrongSettingError(f"{message} ({_brief(error)})") from None

    def _patiently(self, action: Callable[[], T], address: str) -> T:
        def translated() -> T:
            try:
                return action()
            except (Changed, RankscopeError):
                raise
            except FileNotFoundError:
                raise RankscopeError("is not there", path=address, reason="missing") from None
            except PermissionError as error:
                raise self._refused(address, _brief(error)) from None
            except Exception as error:
                # Packages raise errors of their own; only those about credentials are certain.
                if "credential" in type(error).__name__.lower():
                    raise self._refused(address, type(error).__name__) from None
                if isinstance(error, OSError) or _is_of_network(error):
                    raise Transient(_brief(error)) from None
                raise

        host = f"{self.scheme}://{address.partition('://')[2].partition('/')[0]}"
        # Each of these packages tries again itself, for half a minute and more.
        attempts = 1 if self.scheme in PACKAGES else ATTEMPTS
        return patiently(translated, host=host, address=address, attempts=attempts)

    def _refused(self, address: str, why: str) -> RankscopeError:
        known = CREDENTIALS.get(PACKAGES.get(self.scheme, ""), "those that its package reads")
        message = f"may not be read ({why}; credentials looked for: {known})"
        return RankscopeError(message, path=address, reason="permission")


def _entry(where: str, about: Mapping[str, Any]) -> Entry:
    stated = _stated(about)
    version = json.dumps(stated, sort_keys=True) if stated else ""
    return Entry(where, int(about.get("size") or 0), version)


def _stated(about: Mapping[str, Any]) -> dict[str, str]:
    """What shows the version of an object; times are numbers or objects."""
    found = {name: about[name] for name in VERSIONS if about.get(name) is not None}
    return {
        name: str(value.timestamp() if isinstance(value, datetime) else value)
        for name, value in found.items()
    }


def _agree(version: str, about: Mapping[str, Any]) -> bool:
    """Whether an object is of a version, by what both say: a listing may say less than it does."""
    listed, now = json.loads(version or "{}"), _stated(about)
    common = listed.keys() & now.keys()
    return all(listed[name] == now[name] for name in common) and bool(common or not version)


def _is_of_network(error: Exception) -> bool:
    module = type(error).__module__.partition(".")[0]
    return module in (
        "aiohttp",
        "botocore",
        "aiobotocore",
        "requests",
        "httpx",
        "urllib3",
        "asyncio",
    )


def _brief(error: Exception) -> str:
    return printable(str(error) or type(error).__name__, limit=80)
