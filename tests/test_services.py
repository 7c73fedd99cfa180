"""Service tasks: they outlive their callers, never raise, and end with their nursery.

Lives here: `_services` alone. Must never live here: connections.
"""

from __future__ import annotations

import logging
import signal

import pytest
import trio
import trio.testing

from trio_ws._services import FULL_CHECKPOINT_EVERY, Services, open_services


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, trio.EndOfChannel])
async def test_an_exception_of_the_body_comes_out_bare(kind: type[BaseException]) -> None:
    """The very object that the body raised, in no group, with service tasks still running."""
    error = kind("mine")
    with pytest.raises(kind) as caught:
        async with open_services() as services:
            services.start(trio.sleep_forever)
            raise error
    assert caught.value is error


async def test_a_group_of_the_body_is_not_wrapped_again() -> None:
    """A group comes out as the object it was."""
    error = ExceptionGroup("mine", [ValueError(), OSError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_services():
            raise error
    assert caught.value is error


async def test_cancellation_of_the_body_comes_out_as_cancellation() -> None:
    """The scope outside sees its own Cancelled, and the task ends there."""
    with trio.CancelScope() as scope:
        async with open_services() as services:
            services.start(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_cancellation_while_exiting_makes_no_group() -> None:
    """The scope outside is cancelled while services are ending: the body's error still comes out
    bare, and the wait for the services is not cut short."""
    ended = False

    async def slow_to_end() -> None:
        nonlocal ended
        try:
            await trio.sleep_forever()
        finally:
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            ended = True

    error = ValueError("mine")
    with trio.CancelScope() as scope, pytest.raises(ValueError, match="mine") as caught:
        async with open_services() as services:
            services.start(slow_to_end)
            await trio.testing.wait_all_tasks_blocked()
            raise error
    assert caught.value is error
    assert ended


async def test_a_body_that_ends_ends_its_services() -> None:
    """Nothing outlives the `with`; a body that was fine comes out fine under a cancelled scope."""
    ended = []

    async def service(name: str) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(name)

    with trio.CancelScope() as scope:
        async with open_services() as services:
            services.start(service, "a")
            services.start(service, "b")
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
        assert sorted(ended) == ["a", "b"]
    assert not scope.cancelled_caught


async def test_a_service_is_not_cancelled_with_its_surroundings() -> None:
    """A cancelled scope around the `with` does not reach a service before the body has ended."""
    async with trio.open_nursery() as nursery:
        async with open_services() as services:
            events = []

            async def service() -> None:
                await trio.lowlevel.checkpoint()
                events.append("whole")

            nursery.cancel_scope.cancel()
            services.start(service)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
            assert events == ["whole"]


async def test_an_owner_cancels_one_service() -> None:
    """The scope that `start` returns ends that task and no other."""
    async with open_services() as services:
        ended = []

        async def service(name: str) -> None:
            try:
                await trio.sleep_forever()
            finally:
                ended.append(name)

        scope = services.start(service, "one")
        services.start(service, "other")
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["one"]


async def test_a_service_cancelled_before_it_started_never_waits() -> None:
    """Cancelling the scope at once is enough: the first checkpoint ends the task."""
    async with open_services() as services:
        services.start(trio.sleep_forever).cancel()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_failing_service_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its exception goes into the log once, with the traceback; body and siblings live."""

    async def fails() -> None:
        raise OSError("broken")

    async with open_services() as services:
        services.start(fails)
        sibling = services.start(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        assert not sibling.cancel_called
    (record,) = caplog.records
    assert record.name == "trio_ws.connection"
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OSError)


@pytest.mark.row("C6")
async def test_services_are_protected_from_keyboard_interrupt() -> None:
    """Control-C never lands between two lines of a service task; it goes to the program."""
    protected = []

    async def service() -> None:
        protected.append(trio.lowlevel.currently_ki_protected())
        await trio.lowlevel.checkpoint()
        protected.append(trio.lowlevel.currently_ki_protected())

    async with open_services() as services:
        services.start(service)
        await trio.testing.wait_all_tasks_blocked()
    assert protected == [True, True]


@pytest.mark.row("C6")
def test_an_interrupt_while_a_service_runs_reaches_the_program() -> None:
    """SIGINT during a service's step comes out of `trio.run`, and the service's step was whole."""
    steps = []

    async def service() -> None:
        signal.raise_signal(signal.SIGINT)
        steps.append("whole")
        try:
            await trio.sleep_forever()
        finally:
            steps.append("ended")

    async def main() -> None:
        async with open_services() as services:
            services.start(service)
            await trio.sleep_forever()

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert steps == ["whole", "ended"]


@pytest.mark.row("C6")
@pytest.mark.parametrize("error", [None, ValueError("mine")])
def test_an_interrupt_while_services_end_comes_out_bare(error: Exception | None) -> None:
    """SIGINT during the exit is KeyboardInterrupt in no group, and hides no error of the body."""

    async def service() -> None:
        try:
            await trio.sleep_forever()
        finally:
            signal.raise_signal(signal.SIGINT)
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()

    async def main() -> None:
        async with open_services() as services:
            services.start(service)
            await trio.testing.wait_all_tasks_blocked()
            if error is not None:
                raise error

    with pytest.raises(KeyboardInterrupt) as caught:
        trio.run(main)
    assert caught.value.__context__ is error


# -- writing at the next scheduler pass ------------------------------------------------------------


class Page:
    """Something that asked to be written."""

    def __init__(self, log: list[str], name: str) -> None:
        self.log, self.name = log, name

    def write_out(self) -> None:
        self.log.append(self.name)


async def test_what_asked_is_written_at_the_next_pass_in_one_batch() -> None:
    """Nothing at once; everything that asked before the task slept, in order, after one pass."""
    log: list[str] = []
    async with open_services() as services:
        await trio.testing.wait_all_tasks_blocked()
        for name in "abc":
            services.write_soon(Page(log, name))
        assert log == []
        await trio.lowlevel.checkpoint()
        await trio.lowlevel.checkpoint()
        assert log == ["a", "b", "c"]
        services.write_soon(Page(log, "d"))
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["a", "b", "c", "d"]


async def test_what_asks_before_the_writer_runs_is_written() -> None:
    """Asking in the very first step, when the parked task does not exist yet, is not lost."""
    log: list[str] = []
    async with open_services() as services:
        services.write_soon(Page(log, "early"))
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["early"]


async def test_what_asks_while_the_batch_is_written_is_written() -> None:
    """A write that makes something else dirty does not strand it."""
    log: list[str] = []

    class Chain(Page):
        def write_out(self) -> None:
            super().write_out()
            services.write_soon(Page(log, "second"))

    async with open_services() as services:
        await trio.testing.wait_all_tasks_blocked()
        services.write_soon(Chain(log, "first"))
        await trio.testing.wait_all_tasks_blocked()
        assert log == ["first", "second"]


# -- breathing -----------------------------------------------------------------------------------


async def test_breathe_lets_others_run_every_few_calls() -> None:
    """A task that never has to wait still yields: the other one is never far behind."""
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with trio.open_nursery() as nursery, open_services() as services:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        others = 0
        for _ in range(20 * FULL_CHECKPOINT_EVERY):
            await services.breathe()
        assert 19 <= others <= 22
        nursery.cancel_scope.cancel()


async def test_breathe_counts_the_calls_of_all_connections() -> None:
    """One count for the server: a newcomer runs within two rounds, whoever makes the calls."""
    async with open_services() as services:
        ran = []

        async def other() -> None:
            ran.append(True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            for _ in range(2 * FULL_CHECKPOINT_EVERY):
                await services.breathe()
                assert services.calls < FULL_CHECKPOINT_EVERY
            assert ran


async def test_every_breath_is_a_cancellation_point() -> None:
    """In a cancelled scope the very first call raises, whatever the count."""

    async def breaths_until_cancelled(services: Services) -> int:
        count = 0
        with trio.CancelScope() as scope:
            scope.cancel()
            while True:
                await services.breathe()
                count += 1
        return count

    async with open_services() as services:
        for offset in range(FULL_CHECKPOINT_EVERY):
            assert await breaths_until_cancelled(services) == 0
            for _ in range(offset):
                await services.breathe()
