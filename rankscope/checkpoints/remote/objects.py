"""The contract of what runs elsewhere are read from: objects with a version, by ranges of bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

STAMPS = 2**30  # so that a stamp is a time that every file system can hold


@dataclass(frozen=True)
class Entry:
    """One object, as it was when it was listed.

    Attributes
    ----------
    where
        What its source finds it by, without secrets.
    size
        Its bytes.
    version
        What would differ if its content did: an ETag, a digest, or a time with the size.
    digest
        Digest of its content; empty where none is known.
    """

    where: str
    size: int
    version: str
    digest: str = ""

    @property
    def identity(self) -> str:
        """A name for these bytes, under which they are kept; another content has another.

        Versions may be times, which several objects share, so the place is part of it.
        """
        host = self.where.split("/")[:3]  # nobody else can claim to have the same content
        known = (*host, self.digest) if self.digest else (self.where, self.version)
        return hashlib.blake2b(repr((known, self.size)).encode(), digest_size=16).hexdigest()

    @property
    def stamp(self) -> int:
        """The time of its stand-in in seconds, which differs for another content.

        It is even, since some file systems keep no odd ones.
        """
        return 2 * (int(self.identity, 16) % STAMPS)


class Source(Protocol):
    """Reads objects of one kind of place. It holds no connection, so it may be made in a worker."""

    def read(self, entry: Entry, start: int, stop: int) -> bytes:
        """Bytes ``start:stop`` of an object; more of it where only all can be had.

        Returns
        -------
        Those bytes, or all of the object.

        Raises
        ------
        Changed
            If the object is not the one that was listed.
        RankscopeError
            If it is gone, may not be read, or does not answer.
        """


class Changed(Exception):
    """An object is not the one that was listed."""
