"""API keys: who may do what to which collections, and which documents a key is confined to.

A secret is `gk_` and 43 url-safe characters: 32 random bytes. The server keeps its SHA-256 only. That is enough,
without salt or slow hashing, because nobody can guess 256 random bits; for the same reason only secrets of this form
are looked up, never a password that somebody chose.
"""

import hashlib
import hmac
import re
import reprlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, get_args

from index.errors import ConfigError, ForbiddenError, RequestError
from retrieval.filters import ID, MAX_DEPTH, MAX_NODES, Filter, keys, matches, parse_filter
from retrieval.types import Document, Json, Metadata

Scope: TypeAlias = Literal["read", "write", "admin", "metrics"]
"""read: search, get, list, embed, rerank. write: add, patch and delete documents; it does not imply read. metrics:
/metrics, of the whole server. admin: create, delete, compact, snapshot and rename collections, and all the others."""

SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

COLLECTION: Final = "[a-z0-9_-]{1,64}"
"""The names of collections and aliases, as a pattern."""

NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.:/-]{0,127}")
"""Names an operator gives: of keys, encoders and rerankers. A model's full name on a hub is one."""

NAME_RULE: Final = "a name has 1 to 128 of a-z, A-Z, 0-9, _ . : / and -, and begins with a letter or digit"

_SECRET = re.compile(r"gk_[A-Za-z0-9_-]{43}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATTERN = re.compile(rf"{COLLECTION}|[a-z0-9_-]{{0,63}}\*")
_LEAST_FILTER: Final = {"type": "exists", "key": ""}


@dataclass(frozen=True, slots=True)
class Principal:
    """Whom a request comes from. scopes: as granted; `may` knows what they imply.

    collections: names, "prefix-*", or "*" for all. filter: what every document this principal sees or writes must match
    (see retrieval.filters), None for no such limit. Raises RequestError on a filter outside the grammar.
    """

    name: str
    scopes: frozenset[Scope]
    collections: frozenset[str]
    filter: Mapping[str, Json] | None = field(default=None, hash=False)
    _tree: Filter | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tree", None if self.filter is None else parse_filter(self.filter))

    def may(self, scope: Scope, collection: str | None = None) -> bool:
        """Say whether `scope` is granted, for `collection` where one is named.

        collection: a collection's own name, after aliases are resolved. None asks about the scope alone. admin implies
        all scopes, but only within the collections of the key.
        """
        granted = scope in self.scopes or "admin" in self.scopes
        return granted and (collection is None or any(_covers(pattern, collection) for pattern in self.collections))

    def restricted(self, filter: Mapping[str, Json] | None) -> Mapping[str, Json] | None:  # noqa: A002  see filters
        """Return the filter to search, list or delete with: the principal's own AND `filter`, either may be None.

        The grammar's limits hold for the whole. Two `and` are merged into one, so a request keeps its 8 levels when its
        filter is an `and`, and has 7 otherwise. Raises RequestError on a filter outside the grammar or these limits; it
        names places in `filter` as the client sent it, and tells nothing of the principal's own.
        """
        if self.filter is None or filter is None:
            return self.filter if filter is None else filter
        parse_filter(filter)  # before anything is put around it: the places in messages are then the client's
        both = _both(self.filter, filter)
        try:
            parse_filter(both)
        except RequestError as error:
            raise RequestError(
                f"filter leaves no room for the one that this key always adds; together they may have {MAX_DEPTH} "
                f"levels and {MAX_NODES} nodes: flatten it, or use `in` for alternatives of one key"
            ) from error
        return both

    def owns(self, document: Document) -> bool:
        """Say whether a stored document is one that this principal may see, change and delete."""
        return self._tree is None or matches(self._tree, document.metadata, document.id)

    def check_write(self, metadata: Metadata, doc_id: str) -> None:
        """Raise ForbiddenError where the document to be stored would not be the principal's own.

        metadata: as it will be stored, a patch already merged. What is stored under the id before the write is for
        `owns` to judge: both must hold, or one tenant could take over another's document.
        """
        if self._tree is None or matches(self._tree, metadata, doc_id):
            return
        read = ", ".join(sorted(keys(self._tree))) or ID
        raise ForbiddenError(
            f"document {reprlib.repr(doc_id)} does not match the filter of key {self.name!r}, which reads {read}: "
            "give the document the values that this key stands for"
        )


LOCAL: Final = Principal("(local)", frozenset(SCOPES), frozenset({"*"}))
"""Everybody, on a server without keys; such a server listens on loopback only. No key can have this name."""


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A `[[keys]]` table. sha256: of the secret, 64 lower-case hex digits.

    collections: names, "prefix-*", or "*" for all; none at all suits a key that only embeds, reranks or reads metrics.
    filter: see Principal. It must leave room for a request's own filter, and cannot go with the admin scope.
    Raises ConfigError on a value that cannot work.
    """

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    collections: tuple[str, ...] = ("*",)
    filter: Mapping[str, Json] | None = None

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"name is {self.name!r}: {NAME_RULE}")
        if not _SHA256.fullmatch(self.sha256):
            # The value is not shown: it may be the secret, and messages end up in logs.
            raise ConfigError(
                f"sha256 of key {self.name!r} is not 64 lower-case hex digits: put what `grapnel key` printed there "
                "(if it is the secret itself, make a new key: this one has been in a file)"
            )
        unknown = [scope for scope in self.scopes if scope not in SCOPES]
        if unknown or not self.scopes:
            raise ConfigError(f"scopes is {list(self.scopes)}, expected at least one of {', '.join(SCOPES)}")
        for pattern in self.collections:
            if not _PATTERN.fullmatch(pattern):
                raise ConfigError(f"collections holds {pattern!r}, expected a name of a-z, 0-9, _ and -, prefix-* or *")
        if self.filter is not None:
            self._check_filter(self.filter)

    def _check_filter(self, own: Mapping[str, Json]) -> None:
        try:
            parse_filter(own)
        except RequestError as error:
            raise ConfigError(f"{error}; without a filter, leave it out") from error
        try:
            parse_filter(_both(own, _LEAST_FILTER))
        except RequestError as error:
            raise ConfigError("filter leaves no room for a request's own filter: flatten it") from error
        if "admin" in self.scopes:
            raise ConfigError(
                f"key {self.name!r} has a filter and the admin scope, which sees every document: give it other scopes, "
                "or make two keys"
            )

    def principal(self) -> Principal:
        """Return whom a request with this key comes from."""
        return Principal(self.name, frozenset(self.scopes), frozenset(self.collections), self.filter)


class Keys:
    """The keys of a server, none being a server open to whoever reaches it.

    Several keys may share a name and differ only in their secret: the old and the new one while clients are moved over
    (rotation). Raises ConfigError where one secret is listed twice, or where keys of one name differ in their rights.
    """

    def __init__(self, configs: Iterable[KeyConfig]) -> None:
        self._keys: dict[str, Principal] = {}
        by_name: dict[str, Principal] = {}
        for config in configs:
            principal = config.principal()
            if config.sha256 in self._keys:
                raise ConfigError(f"key {config.name!r} has the sha256 of another key: make one with `grapnel key`")
            if by_name.setdefault(config.name, principal) != principal:
                raise ConfigError(
                    f"keys named {config.name!r} differ in scopes, collections or filter: only keys with the same "
                    "rights may share a name, so rename one"
                )
            self._keys[config.sha256] = principal

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, presented: str) -> Principal | None:
        """Return whose secret this is, None for nobody's.

        Takes equally long whichever key it is, so time tells nothing: each stored hash is compared, in constant time.
        """
        if not _SECRET.fullmatch(presented):
            return None
        digest = _sha256(presented)
        found = None
        for stored, principal in self._keys.items():
            if hmac.compare_digest(stored, digest):
                found = principal
        return found


def make_key() -> tuple[str, str]:
    """Return a new secret and its SHA-256 in hex; the secret is kept nowhere."""
    secret = f"gk_{secrets.token_urlsafe(32)}"
    return secret, _sha256(secret)


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def _covers(pattern: str, collection: str) -> bool:
    return collection.startswith(pattern[:-1]) if pattern.endswith("*") else collection == pattern


def _both(own: Mapping[str, Json], other: Mapping[str, Json]) -> dict[str, Json]:
    """Return the AND of two filters that have been parsed."""
    return {"type": "and", "filters": [*_parts(own), *_parts(other)]}


def _parts(filter: Mapping[str, Json]) -> list[Json]:  # noqa: A002  see filters
    return list(filter["filters"]) if filter["type"] == "and" else [filter]
