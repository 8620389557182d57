"""
What runs by a schedule: a function per job, and the composition root of their process.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from .chassis.exits import Exit
from .chassis.job import Failed, Jobs
from .resources import Resources, open_resources
from .settings import Settings

__all__ = ["JOBS", "compose"]


async def sweep(resources: Resources) -> Mapping[str, object]:
    """
    Delete all but the newest backups, but none at all when no new ones come.
    """
    settings = resources.settings
    if settings.backup_dir is None:
        raise Failed("APP_BACKUP_DIR is missing", code=Exit.CONFIGURATION)
    # Files take time, and the event loop must go on meanwhile.
    return await asyncio.to_thread(
        _sweep,
        settings.backup_dir,
        keep=settings.backup_keep,
        fresh_seconds=2 * settings.job_interval_seconds,
    )


def _sweep(folder: Path, *, keep: int, fresh_seconds: float) -> Mapping[str, object]:
    files = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    # A name breaks the tie of two that came at once.
    files.sort(key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    if not files:
        raise Failed(f"{folder} is empty: nothing is backed up into it")
    newest = files[0].stat()
    age = time.time() - newest.st_mtime
    if age > fresh_seconds or newest.st_size == 0:
        told = f"{newest.st_size} bytes, {age:.0f} s old"
        raise Failed(f"the newest file, {files[0].name}, is no new backup ({told}); see why")
    for path in files[keep:]:
        path.unlink(missing_ok=True)
    return {"kept": len(files[:keep]), "deleted": len(files[keep:])}


# What a function returns becomes fields of the `run` event.
JOBS = {"sweep": sweep}


@asynccontextmanager
async def compose(settings: Settings) -> AsyncGenerator[Jobs]:
    """
    Settings in, jobs out; what is opened here is closed when the run ends.
    """
    async with open_resources(settings) as resources:
        jobs = {name: partial(job, resources) for name, job in JOBS.items()}
        yield Jobs(jobs=jobs, checks=resources.checks)
