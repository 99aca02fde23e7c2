"""Every error grapnel raises on purpose, drawn as a tree.

GrapnelError
├── ShapeError            an array of the wrong shape or dtype
├── ConfigError           an unknown key or a bad value in a configuration (exit status 2)
├── RequestError          a query, filter or option that cannot be answered as asked (exit status 2)
├── CorpusError           a document or source that cannot be read or accepted
├── IndexFormatError      a file on disk that is damaged, of another version, or made by another model
├── StorageError          the operating system refused a read or write (disk full, read-only, I/O error)
├── LockedError           another process holds the writer lock (exit status 3)
├── NotFoundError         a collection, document or field that does not exist
├── ConflictError         what is there already, or has changed meanwhile, forbids the write
│   └── PreconditionError     the version or absence that the caller asked for is not what is stored
├── ForbiddenError        the caller may not do this, or not to this document
├── RerankerError         a reranker failed or answered something that is no permutation
├── OverloadedError       more work is queued than may wait; says when to try again
├── UnavailableError      the service is starting or stopping
├── DeadlineError         the caller's deadline passed before its work was done
└── MissingDependencyError  an optional package or runtime is not installed

Every message says value, expectation and remedy.
"""


class GrapnelError(Exception):
    """Root of every error that grapnel raises on purpose."""


class ShapeError(GrapnelError, ValueError):
    """An array has the wrong shape or dtype."""


class ConfigError(GrapnelError, ValueError):
    """A configuration holds an unknown key or a bad value; the message names file, table and key."""


class RequestError(GrapnelError, ValueError):
    """A search request cannot be answered as asked: k, filter, mode or option is invalid."""


class CorpusError(GrapnelError, ValueError):
    """A document or a source of documents cannot be read or accepted; the message names the place."""


class IndexFormatError(GrapnelError):
    """A file on disk is damaged, of another format version, or belongs to another model."""


class StorageError(GrapnelError):
    """The operating system refused a read or a write; the cause is chained."""


class LockedError(GrapnelError):
    """Another process holds the writer lock; the message names the holder."""


class NotFoundError(GrapnelError, LookupError):
    """A collection, document or field does not exist."""


class ConflictError(GrapnelError):
    """What is there already, or has changed meanwhile, forbids the write."""


class PreconditionError(ConflictError):
    """A document's version, or its absence, is not what the caller made the write depend on."""


class ForbiddenError(GrapnelError):
    """The caller may not do this, or not to this document."""


class RerankerError(GrapnelError):
    """A reranker failed or answered something that is no permutation of its candidates."""


class OverloadedError(GrapnelError):
    """More work is queued than may wait, or the queue is closed. retry_after_s: when to try again, in seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnavailableError(GrapnelError):
    """The service is starting or stopping."""


class DeadlineError(GrapnelError, TimeoutError):
    """The caller's deadline passed before its work was done; there is no answer."""


class MissingDependencyError(GrapnelError, ImportError):
    """An optional package or runtime is not installed; the message names the extra to install."""
