"""A stream of documents, one a line: read, checked and stored in batches, in bounded memory."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from starlette.exceptions import HTTPException

from api.flaws import flaw_text
from api.http.answers import read_json
from api.http.schemas import DocumentIn
from api.http.vectors import document_of
from api.keys import Principal
from api.service import Service
from index.errors import ConflictError, CorpusError, ForbiddenError, OverloadedError, RequestError
from retrieval.ingest import AddReport
from retrieval.types import Document

BATCH_DOCUMENTS = 500
BATCH_BYTES = 4 << 20
_ERRORS = 100
_MESSAGE_CHARACTERS = 300

_REFUSALS = (CorpusError, RequestError, ForbiddenError, ConflictError)
"""What one document alone can be refused for; anything else ends the stream."""


class Bulk:
    """One bulk request. Lines are numbered from 1; empty ones are skipped."""

    def __init__(self, service: Service, principal: Principal, collection: str) -> None:
        self._service = service
        self._principal = principal
        self._collection = collection
        self._report = AddReport()
        self._lines = 0
        self._settled = 0
        self._failed = 0
        self._errors: list[dict[str, Any]] = []
        self._batch: dict[str, tuple[int, Document]] = {}
        self._batch_bytes = 0

    async def run(self, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """Store what the stream holds, and say what became of it.

        While a batch is stored nothing more is read, so that a fast client waits instead of filling the memory.
        Raises what ends the stream; `report` then says how far it came.
        """
        try:
            async for line in self._split(chunks):
                self._lines += 1
                document = self._document(line)
                if document is None:
                    continue
                if document.id in self._batch:  # a batch is one transaction, in which an id can stand once
                    await self._store()
                self._batch[document.id] = self._lines, document
                self._batch_bytes += len(line)
                if len(self._batch) >= BATCH_DOCUMENTS or self._batch_bytes >= BATCH_BYTES:
                    await self._store()
        finally:  # where the stream breaks off, too
            await self._store()
        self._settled = self._lines
        return self.report()

    def report(self) -> dict[str, Any]:
        """Say what became of the stream so far, as JSON values. lines: the first ones, all of which have their outcome.

        A client whose stream was ended goes on behind them; what it sends twice is unchanged and costs little.
        """
        return {"lines": self._settled, **asdict(self._report), "failed": self._failed, "errors": self._errors}

    async def _split(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        most = self._service.limits.line_bytes
        left = bytearray()
        async for chunk in chunks:
            start = 0
            while (stop := chunk.find(b"\n", start)) >= 0:
                left += chunk[start:stop]
                self._check_length(left, most)
                yield bytes(left)
                left.clear()
                start = stop + 1
            left += chunk[start:]
            self._check_length(left, most)
        if left:
            yield bytes(left)

    def _check_length(self, line: bytearray, most: int) -> None:
        if len(line) > most:
            detail = f"line {self._lines + 1} is longer than {most:,} bytes: split it; lines before it are stored"
            raise HTTPException(413, detail, {"Connection": "close"})

    def _document(self, line: bytes) -> Document | None:
        if not line.strip():
            return None
        try:
            given = DocumentIn.model_validate(read_json(line))
            return document_of(given.id, given)
        except json.JSONDecodeError as error:
            self._refuse(self._lines, None, f"not JSON: {error.msg}")
        except ValidationError as error:
            self._refuse(self._lines, None, flaw_text(error.errors(include_input=False, include_url=False)[0]))
        except RequestError as error:
            self._refuse(self._lines, None, str(error))
        return None

    def _refuse(self, line: int, doc_id: str | None, message: str) -> None:
        self._failed += 1
        if len(self._errors) < _ERRORS:
            self._errors.append({"line": line, "id": doc_id, "message": message[:_MESSAGE_CHARACTERS]})

    async def _store(self) -> None:
        batch, self._batch, self._batch_bytes = list(self._batch.values()), {}, 0
        if batch:
            await self._store_batch(batch)
            self._settled = batch[-1][0]

    async def _store_batch(self, batch: list[tuple[int, Document]]) -> None:
        """Store a batch; where a document in it is refused, halve it until the refused ones are alone."""
        try:
            self._report += await self._add([document for _, document in batch])
        except _REFUSALS as error:
            if len(batch) == 1:
                self._refuse(batch[0][0], batch[0][1].id, str(error))
                return
            middle = len(batch) // 2
            await self._store_batch(batch[:middle])
            await self._store_batch(batch[middle:])

    async def _add(self, documents: list[Document]) -> AddReport:
        """Store documents. Where too much waits, so does the stream: one busy moment must not end hours of sending."""
        until = time.monotonic() + self._service.limits.timeout_s
        while True:
            try:
                return await self._service.documents.add_stream(self._principal, self._collection, documents)
            except OverloadedError as error:
                if time.monotonic() + error.retry_after_s > until:
                    raise
                await asyncio.sleep(error.retry_after_s)
