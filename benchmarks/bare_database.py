"""
The application of `bare.py` with its notes in PostgreSQL: a bare pool of asyncpg, and its defaults.

    DATABASE_URL=postgresql://... uvicorn bare_database:app
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import asyncpg
from bare import Note, router
from fastapi import FastAPI

__all__ = ["app"]


class NotesInPostgreSQL:
    """
    The same statements as in the seeds.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def add(self, note: Note) -> None:
        async with self._pool.acquire() as connection:
            await connection.execute(
                "INSERT INTO notes (id, text, written_at) VALUES ($1, $2, $3)",
                note.id,
                note.text,
                note.written_at,
            )

    async def get(self, note_id: UUID) -> Note | None:
        async with self._pool.acquire() as connection:
            row = await connection.fetchrow(
                "SELECT id, text, written_at FROM notes WHERE id = $1", note_id
            )
        return Note(**row) if row else None


class Resources:
    """
    As in `bare.py`.
    """

    def __init__(self, pool: Any) -> None:
        self.page_size_max, self.notes = 100, NotesInPostgreSQL(pool)


@asynccontextmanager
async def _lifespan(made: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=0) as pool:
        made.state.resources = Resources(pool)
        yield


app = FastAPI(lifespan=_lifespan)
app.include_router(router)
