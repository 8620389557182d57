"""
Steps between the states of the database's schema, by Alembic; SQLAlchemy is used for nothing else.
"""

import asyncio
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from .settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

__all__ = ["up"]

PACKAGE = (__package__ or "").partition(".")[0]


def up(settings: Settings) -> None:
    """
    Apply what is missing, all of it or nothing.
    """
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine

    if settings.database_url is None:
        raise ValueError("APP_DATABASE_URL is not set")
    url = settings.database_url.get_secret_value()

    async def connect(*_: object, **__: object) -> object:
        return await asyncpg.connect(url, timeout=settings.db_connect_seconds)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect)
    async with engine.connect() as connection:
        await connection.run_sync(_upgrade)
        await connection.commit()
    await engine.dispose()


def _upgrade(connection: "Connection") -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(files(PACKAGE) / "migrations"))
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(
        config,
        script,
        fn=lambda revision, _: script._upgrade_revs("head", revision),  # noqa: SLF001
        destination_rev="head",
    ) as context:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
