"""One project's calls take turns before they take a thread or a connection."""

import gc

import anyio
import pytest

from service.http.dependencies import Turns


@pytest.mark.anyio
async def test_in_the_order_they_came_and_no_other_project_waits() -> None:
    turns, order = Turns(), list[str]()
    asked = anyio.Event()

    async def call(name: str, project: str) -> None:
        async with turns.of(project):
            order.append(name)
            if name == "first":
                await asked.wait()

    async with anyio.create_task_group() as calls:
        for name, project in (("first", "p_1"), ("second", "p_1"), ("third", "p_1"), ("other", "p_2")):
            calls.start_soon(call, name, project)
            await anyio.wait_all_tasks_blocked()
        assert order == ["first", "other"]
        asked.set()
    assert order == ["first", "other", "second", "third"]


def test_projects_that_nobody_asks_for_are_forgotten() -> None:
    turns = Turns()
    held = turns.of("p_1")
    assert turns.of("p_1") is held
    for number in range(100):
        turns.of(f"p_{number}x")
    gc.collect()
    assert list(turns._of) == ["p_1"]
