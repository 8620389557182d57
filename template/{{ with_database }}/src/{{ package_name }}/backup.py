"""
Backups of the database, each restored into a scratch database before it counts as one.

A backup is a zip file: a member per table, as COPY writes it, and `manifest.json`, which tells
revision, columns, rows and checksums as the database saw them when the backup was made.
"""

import asyncio
import hashlib
import json
import os
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from asyncpg import (
    DataError,
    InsufficientPrivilegeError,
    IntegrityConstraintViolationError,
    Record,
)
from pydantic import Secret

from .chassis import migrations
from .chassis.database import Database, open_database
from .chassis.exits import Exit
from .chassis.job import Failed
from .settings import Settings

if TYPE_CHECKING:
    from .chassis.database import Connection

__all__ = ["check", "make", "prove", "restore"]

CHUNK_BYTES = 1 << 16
# Values as text, the same in every session.
FORMS = {
    "bytea_output": "hex",
    "datestyle": "ISO",
    "extra_float_digits": "3",
    "intervalstyle": "postgres",
    "timezone": "UTC",
}
# Ours: not those of the system or of an extension. A partitioned table is in its partitions.
OURS = """
    n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' AND NOT EXISTS (
        SELECT FROM pg_depend d
        WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
    )
"""
TABLES = f"""
    SELECT format('%I.%I', n.nspname, c.relname) AS name, n.nspname AS schema, c.relname AS plain,
        (SELECT array_agg(quote_ident(attname) || ' ' || format_type(atttypid, atttypmod)
            ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) AS columns,
        (SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                AND attgenerated = '') AS written
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relname <> 'alembic_version' AND {OURS} ORDER BY 1
"""  # noqa: S608  # a constant
SEQUENCES = f"""
    SELECT format('%I.%I', n.nspname, c.relname) AS name
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND {OURS} ORDER BY 1
"""  # noqa: S608  # a constant
FOREIGN_KEYS = f"""
    SELECT format('%I.%I', n.nspname, c.relname) AS name, quote_ident(k.conname) AS key,
        pg_get_constraintdef(k.oid) AS definition
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 AND {OURS}
"""  # noqa: S608  # a constant


async def make(settings: Settings) -> Mapping[str, object]:
    """
    Dump, restore what was dumped elsewhere, compare; only then does the file get its name.
    """
    folder = _folder(settings)
    for left in folder.glob(".backup-*.partial"):
        # Of a run that was killed; no other one runs.
        left.unlink()
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    partial, final = folder / f".backup-{now}.partial", folder / f"backup-{now}.zip"
    try:
        async with open_database(_patient(settings)) as database:
            manifest = await _dump(database, partial)
        await prove(settings, partial)
        partial.rename(final)
        _sync(folder)
    except OSError as error:
        raise Failed(f"can't write {partial}: {error}; is there room?") from error
    finally:
        partial.unlink(missing_ok=True)
    old = sorted(folder.glob("backup-*.zip"))[: -settings.backup_keep]
    for path in old:
        path.unlink()
    rows = sum(table["rows"] for table in manifest["tables"].values())
    size = final.stat().st_size
    counts = {"tables": len(manifest["tables"]), "rows": rows, "bytes": size}
    return {"backup": final.name, **counts, "deleted": len(old)}


async def restore(settings: Settings) -> Mapping[str, object]:
    """
    Put the named backup into the database of the service, which must be migrated and empty.
    """
    if settings.backup_restore is None:
        newest = max(_folder(settings).glob("backup-*.zip"), default=None)
        if newest is None:
            raise Failed(f"there is no backup in {settings.backup_dir}")
        manifest = await asyncio.to_thread(check, newest)
        return {"is_dry_run": True, "action": f"APP_BACKUP_RESTORE={newest}", **_told(manifest)}
    manifest = await asyncio.to_thread(check, settings.backup_restore)
    async with open_database(_patient(settings)) as database:
        await _load(database, settings.backup_restore, manifest)
    return {"is_dry_run": False, "backup": settings.backup_restore.name, **_told(manifest)}


async def prove(settings: Settings, path: Path) -> None:
    """
    Restore the file into a scratch database; raises `Failed` where that is not the same.
    """
    manifest = await asyncio.to_thread(check, path)
    async with _scratch(settings) as scratch:
        await migrations.migrate(scratch, lambda *_, **__: None, back=0, removes=0)
        async with open_database(scratch) as database:
            async with database.connection() as connection:
                # What migrations put there is in the backup, too.
                for row in await connection.fetch(TABLES):
                    await connection.execute(f"TRUNCATE {row['name']} CASCADE")
            await _load(database, path, manifest)


def check(path: Path) -> dict[str, Any]:
    """
    The manifest of a backup that is whole, as far as the file alone tells; raises `Failed`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            manifest: dict[str, Any] = json.loads(archive.read("manifest.json"))
            wanted = [*map(_member, manifest["tables"]), "manifest.json"]
            is_whole = archive.namelist() == wanted
            for name, table in manifest["tables"].items():
                with archive.open(_member(name)) as member:
                    is_whole &= _digest(member) == table["sha256"]
    except Exception as error:  # whatever a broken file makes the library raise
        raise Failed(f"{path.name} is broken: {type(error).__name__}: {error}") from error
    if not is_whole:
        raise Failed(f"{path.name} is broken: its members are not those of its manifest")
    return manifest


async def _dump(database: Database, path: Path) -> dict[str, Any]:
    """
    Write the file as one moment of the database, which computes the checksums itself.
    """
    tables: dict[str, Any] = {}
    async with database.connection() as connection:
        await _form(connection)
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            revision = await _revision(connection)
            with _create(path) as file:
                with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                    for row in await connection.fetch(TABLES):
                        name = row["name"]
                        with archive.open(_member(name), "w", force_zip64=True) as member:
                            sha256 = await _copy_out(connection, row, member)
                        seen = await _summary(connection, name)
                        tables[name] = {"columns": row["columns"], "sha256": sha256, **seen}
                    # They may run ahead of the rows, never behind them.
                    sequences = await _sequences(connection)
                    manifest = {"revision": revision, "tables": tables, "sequences": sequences}
                    archive.writestr("manifest.json", json.dumps(manifest, indent=1))
                file.flush()
                os.fsync(file.fileno())
    return manifest


async def _load(database: Database, path: Path, manifest: dict[str, Any]) -> None:
    """
    Fill the empty tables, all of them or none, and compare them with the manifest.
    """
    async with database.connection() as connection:
        await _form(connection)
        async with connection.transaction():
            await _compare_schema(connection, manifest)
            try:
                await _fill(connection, path, manifest)
            except (DataError, IntegrityConstraintViolationError) as error:
                raise Failed(f"{path.name} can't be restored: {error}") from error
            for name, table in manifest["tables"].items():
                seen = await _summary(connection, name)
                wanted = {key: table[key] for key in seen}
                if seen != wanted:
                    raise Failed(f"{path.name}: {name} is restored as {seen}, not as {wanted}")
            if await _sequences(connection) != manifest["sequences"]:
                raise Failed(f"{path.name}: sequences are not restored as they were")


async def _fill(connection: "Connection", path: Path, manifest: dict[str, Any]) -> None:
    keys = await connection.fetch(FOREIGN_KEYS)
    # Rows come in any order; the keys are checked when they are added again.
    for row in keys:
        await connection.execute(f"ALTER TABLE {row['name']} DROP CONSTRAINT {row['key']}")
    with zipfile.ZipFile(path) as archive:
        for row in await connection.fetch(TABLES):
            await connection.execute(f"ALTER TABLE {row['name']} DISABLE TRIGGER USER")
            with archive.open(_member(row["name"])) as member:
                await _copy_in(connection, row, member)
            await connection.execute(f"ALTER TABLE {row['name']} ENABLE TRIGGER USER")
    for row in keys:
        add = f"ADD CONSTRAINT {row['key']} {row['definition']}"
        await connection.execute(f"ALTER TABLE {row['name']} {add}")
    for name, (value, is_called) in manifest["sequences"].items():
        put = "SELECT setval($1::text::regclass, $2, $3)"
        await connection.execute(put, name, value, is_called)


async def _compare_schema(connection: "Connection", manifest: dict[str, Any]) -> None:
    """
    Raises `Failed` unless the database has the tables of the backup, and nothing in them.
    """
    revision = await _revision(connection)
    if revision != manifest["revision"]:
        told = f"the backup is of revision {manifest['revision']}, the database of {revision}"
        raise Failed(f"{told}; use the version that the backup is of, or run `migrate up` first")
    found = {row["name"]: row["columns"] for row in await connection.fetch(TABLES)}
    wanted = {name: table["columns"] for name, table in manifest["tables"].items()}
    odd = sorted({name for name in {*found, *wanted} if found.get(name) != wanted.get(name)})
    if odd:
        raise Failed(f"not made by migrations: {', '.join(odd)}; make them there, or move them")
    for name in found:
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {name})"):  # noqa: S608  # quoted
            raise Failed(f"{name} is not empty; restore into an empty database after `migrate up`")


@asynccontextmanager
async def _scratch(settings: Settings) -> AsyncGenerator[Settings]:
    """
    The settings of an empty database, which is dropped again; one of a killed run is, too.
    """
    given = _patient(settings)
    if settings.backup_scratch_url:
        update = {"database_url": settings.backup_scratch_url, "database_password_file": None}
        given = given.model_copy(update=update)
    if settings.database_url is None or given.database_url is None:
        raise Failed("APP_DATABASE_URL is missing", code=Exit.CONFIGURATION)
    own = urlsplit(settings.database_url.get_secret_value()).path.strip("/")
    # PostgreSQL cuts names at 63 bytes: what is left of a long one would be that of the database.
    url, name = urlsplit(given.database_url.get_secret_value()), f"{own[:40]}_backup_scratch"
    async with open_database(given) as database, database.connection() as connection:
        drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
        await connection.execute(drop)
        try:
            await connection.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')
        except InsufficientPrivilegeError as error:
            told = "let it (ALTER ROLE … CREATEDB), or set APP_BACKUP_SCRATCH_URL"
            raise Failed(f"scratch database: {error}; {told}", code=Exit.CONFIGURATION) from error
        try:
            there = Secret(url._replace(path=f"/{name}").geturl())
            yield given.model_copy(update={"database_url": there})
        finally:
            await connection.execute(drop)


def _digest(member: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while data := member.read(CHUNK_BYTES):
        digest.update(data)
    return digest.hexdigest()


async def _copy_out(connection: "Connection", row: Record, member: IO[bytes]) -> str:
    digest = hashlib.sha256()

    async def write(data: bytes) -> None:
        digest.update(data)
        member.write(data)

    table, schema, columns = row["plain"], row["schema"], row["written"]
    await connection.copy_from_table(table, schema_name=schema, columns=columns, output=write)
    return digest.hexdigest()


async def _copy_in(connection: "Connection", row: Record, member: IO[bytes]) -> None:
    async def read() -> AsyncIterator[bytes]:
        while data := member.read(CHUNK_BYTES):
            yield data

    table, schema, columns = row["plain"], row["schema"], row["written"]
    await connection.copy_to_table(table, schema_name=schema, columns=columns, source=read())


async def _summary(connection: "Connection", name: str) -> dict[str, Any]:
    """
    Rows and a checksum of their contents in any order, as the database sees them.
    """
    hashes = 'hashtextextended(t::text COLLATE "C", 0)::numeric'
    query = f"SELECT count(*), coalesce(sum({hashes}), 0)::text FROM ONLY {name} t"  # noqa: S608  # quoted
    (row,) = await connection.fetch(query)
    return {"rows": row[0], "checksum": row[1]}


async def _sequences(connection: "Connection") -> dict[str, Any]:
    found = {}
    for row in await connection.fetch(SEQUENCES):
        query = f"SELECT last_value, is_called FROM {row['name']}"  # noqa: S608  # quoted
        found[row["name"]] = [*(await connection.fetch(query))[0]]
    return found


async def _revision(connection: "Connection") -> str:
    if await connection.fetchval("SELECT to_regclass('alembic_version')") is None:
        raise Failed("the database has no tables; run `migrate up` first")
    versions = await connection.fetch("SELECT version_num FROM alembic_version")
    return ",".join(sorted(row["version_num"] for row in versions))


async def _form(connection: "Connection") -> None:
    for name, value in FORMS.items():
        await connection.execute("SELECT set_config($1, $2, false)", name, value)


def _patient(settings: Settings) -> Settings:
    """
    For statements that may take as long as the run.
    """
    seconds = settings.job_max_runtime_seconds
    limits = dict.fromkeys(
        ("database_statement_seconds", "database_idle_in_transaction_seconds"), seconds
    )
    return settings.model_copy(update={**limits, "pool_size_max": 2})


def _folder(settings: Settings) -> Path:
    if settings.backup_dir is None:
        raise Failed("APP_BACKUP_DIR is missing", code=Exit.CONFIGURATION)
    return settings.backup_dir


def _member(name: str) -> str:
    return f"{name}.copy"


def _create(path: Path) -> IO[bytes]:
    """
    It will hold all there is: for nobody else to read.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(folder: Path) -> None:
    """
    Make a new name in it last.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _told(manifest: dict[str, Any]) -> dict[str, object]:
    rows = sum(table["rows"] for table in manifest["tables"].values())
    return {"tables": len(manifest["tables"]), "rows": rows, "schema": manifest["revision"]}
