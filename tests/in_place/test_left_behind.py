"""
What is left behind neither lives on nor makes noise.
"""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from demo_service.chassis.health import Check, CheckState
from demo_service.chassis.limits import until_draining


@pytest.mark.promise("L6")
def test_probe_that_fails_while_it_is_cancelled() -> None:
    """
    A probe that ends with an error after its limit is no stray error.
    """

    async def probe() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ConnectionError

    async def run() -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        state = CheckState(Check(name="faulty", probe=probe))
        for _ in range(3):
            assert await state.run(timeout_seconds=0.01) is not None
            await asyncio.sleep(0)
        del state
        gc.collect()
        return told

    assert asyncio.run(run()) == []


@pytest.mark.promise("T9")
def test_stream_whose_client_leaves() -> None:
    """
    A stream that is cancelled while it waits lets go of its source.
    """

    async def run() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def source() -> AsyncIterator[int]:
            asked.set()
            try:
                yield await asyncio.sleep(60, 1)
            finally:
                ended.set()

        async def read() -> None:
            async for _ in until_draining(source()):
                pass

        reader = asyncio.create_task(read())
        await asked.wait()
        reader.cancel()
        await asyncio.wait_for(ended.wait(), 5)

    asyncio.run(run())
