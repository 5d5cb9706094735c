"""Running functions, from tasks as from requests: who is given up is told so."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from castlegate.errors import CallFailed, Outcome
from castlegate.python.running import Ended, Runner
from castlegate.python.settings import PythonSettings
from castlegate.python.threads import Threads
from castlegate.rules.deadlines import GRAIN
from castlegate.waiting import DirectTask, Waiter
from castlegate.wire.timer import Timer


@pytest.fixture
async def runner() -> Any:
    loop = asyncio.get_running_loop()
    threads = Threads(PythonSettings(threads=1, queued=1), loop)
    yield Runner(Timer(loop), threads, loop)
    await threads.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - threads bring it about
            await asyncio.sleep(0.001)


class Waits:
    """A function that waits for ever, and notes how it ended."""

    def __init__(self) -> None:
        self.begun = self.cancelled = False

    async def __call__(self) -> None:
        self.begun = True
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled = True
            raise


@pytest.mark.parametrize("direct", [True, False])
async def test_a_request_that_is_given_up_cancels_its_function(runner: Runner, direct: bool) -> None:
    function, ended = Waits(), []
    running = runner.run(function, {}, runner.timer.now() + 60, asynchronous=True)
    if direct:
        task: Any = DirectTask(running, lambda _, error: ended.append(error))
        task.start()
    else:
        task = asyncio.create_task(running)
        task.add_done_callback(lambda done: ended.append(done.cancelled()))
    await until(lambda: function.begun)
    task.cancel()
    await until(lambda: function.cancelled and bool(ended))


async def test_the_deadline_cancels_and_tells_that_it_had_begun(runner: Runner) -> None:
    function = Waits()
    with pytest.raises(CallFailed) as raised:
        await runner.run(function, {}, runner.timer.now() + 0.05, asynchronous=True)
    assert raised.value.outcome is Outcome.UNKNOWN
    await until(lambda: function.cancelled)


class Due:
    """Something that a function waits for, until a time."""

    def __init__(self) -> None:
        self.waiter: Waiter[None] = Waiter()

    def expire(self) -> None:
        self.waiter.fail(TimeoutError())


async def test_what_a_function_waits_for_times_out_first_however_late_the_loop_is(runner: Runner) -> None:
    due, deadline = Due(), runner.timer.now() + 0.05
    heard: list[str] = []
    ended: list[BaseException | None] = []

    async def function() -> None:
        runner.timer.add(due, deadline - GRAIN)
        time.sleep(0.2)  # noqa: ASYNC251 - that the loop is late for both is what is tested
        try:
            await due.waiter
        except TimeoutError:
            heard.append("its own time was over")

    running = runner.run(function, {}, deadline, asynchronous=True)
    DirectTask(running, lambda _, error: ended.append(error)).start()
    await until(lambda: bool(ended))
    assert heard == ["its own time was over"]


async def test_queued_functions_run_in_order_and_those_given_up_never(runner: Runner) -> None:
    go, ran = threading.Event(), []

    def held() -> None:
        go.wait(5)

    first = asyncio.create_task(runner.run(held, {}, runner.timer.now() + 60, asynchronous=False))
    await until(lambda: runner.threads._busy == 1)
    given_up = asyncio.create_task(runner.run(ran.append, {"object": 1}, runner.timer.now() + 60, asynchronous=False))
    await until(lambda: len(runner.threads._queue) == 1)
    given_up.cancel()
    await until(lambda: not runner.threads._queue)
    following = asyncio.create_task(runner.run(lambda: 3, {}, runner.timer.now() + 60, asynchronous=False))
    go.set()
    assert await following == 3
    await first
    assert ran == []


async def test_threads_end_when_they_are_stopped_also_those_made_for_what_was_queued() -> None:
    loop, go, on = asyncio.get_running_loop(), threading.Event(), set[threading.Thread]()

    def held() -> None:
        on.add(threading.current_thread())
        go.wait(5)

    threads = Threads(PythonSettings(threads=2, queued=3), loop)
    jobs = [threads.run(held) for _ in range(5)]
    await threads.stop()
    go.set()
    await until(lambda: all(job.waiter.done() for job in jobs))
    await until(lambda: not any(thread.is_alive() for thread in on))


class Stop(BaseException):
    """An error that few expect."""


@pytest.mark.parametrize(
    "error",
    [SystemExit(1), KeyboardInterrupt(), Stop(), GeneratorExit(), BaseExceptionGroup("", [KeyboardInterrupt()])],
)
@pytest.mark.parametrize("asynchronous", [True, False])
async def test_what_would_end_the_program_ends_one_request(
    runner: Runner, error: BaseException, asynchronous: bool
) -> None:
    def blocking() -> None:
        raise error

    async def function() -> None:
        raise error

    chosen = function if asynchronous else blocking
    with pytest.raises(Ended) as raised:
        await runner.run(chosen, {}, runner.timer.now() + 5, asynchronous=asynchronous)
    assert raised.value.__cause__ is error
