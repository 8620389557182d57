"""
What runs by a schedule: a function per job, and the composition root of their process.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from . import backup
from .chassis.job import Jobs
from .resources import Resources, open_resources
from .settings import Settings

__all__ = ["JOBS", "compose"]


async def back_up(resources: Resources) -> Mapping[str, object]:
    """
    Back up the database, and prove that the backup can be restored.
    """
    return await backup.make(resources.settings)


async def restore(resources: Resources) -> Mapping[str, object]:
    """
    Put a backup into an empty database; look only, until APP_BACKUP_RESTORE names one.
    """
    return await backup.restore(resources.settings)


# What a function returns becomes fields of the `run` event.
JOBS = {"backup": back_up, "restore": restore}


@asynccontextmanager
async def compose(settings: Settings) -> AsyncGenerator[Jobs]:
    """
    Settings in, jobs out; what is opened here is closed when the run ends.
    """
    async with open_resources(settings) as resources:
        jobs = {name: partial(job, resources) for name, job in JOBS.items()}
        yield Jobs(jobs=jobs, checks=resources.checks)
