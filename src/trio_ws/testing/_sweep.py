"""The cancellation sweep: run a scenario again and again, cancelling it one step later each time.

Lives here: the loop over the points, the report, the judgement of one run (`cancel_at_every_step`,
`interrupt_at_every_step`). Must never live here: anything that knows of WebSockets; the sweep works
on every trio program.

Cancellation can reach a task wherever it waits, so code is right only if it is right at each of
these places. Counting the steps of one task would miss them: a parked task takes no steps. So a
point is the end of a scheduler step of *any* task, and the first moment after a wait for I/O or
the clock, while the scenario is inside ``async with target:``. (The moments between are the same
to the tasks.)

Trio shuffles the order in which ready tasks run, and offers no seed. Two runs may differ, so a
scenario has to hold in every order, and point 17 is not a fixed place: `repeats` visits each
point number several times, and a failure names the number as a hint.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import trio
import trio.testing

from ._target import InterruptTarget, Target, Watchdog

__all__ = ["SweepFailure", "SweepReport", "cancel_at_every_step", "interrupt_at_every_step"]

_QUIET_RUNS = 4
"""Points in a row that nothing happened at before a sweep ends: the number of steps varies a
little from run to run, as the order of tasks does."""

Scenario: TypeAlias = Callable[[Target], Awaitable[None]]


class SweepFailure(AssertionError):
    """A run of a sweep failed. The message says at which point and how; the cause is chained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepReport:
    """What a sweep has covered, to be printed and asserted on.

    Attributes:
        name: the scenario's name.
        runs: how often the scenario ran, the runs nothing happened to included.
        points: runs in which the cancellation (or interrupt) happened, so cancel points tried.
        delivered: of these, how many hit the target's own task while it was parked.
        partial_writes: of these, how many fell inside a partial write of a stream given to
            `Target.watch`.
    """

    name: str
    runs: int
    points: int
    delivered: int
    partial_writes: int

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.runs} runs, {self.points} cancel points, "
            f"{self.delivered} hit a parked task, "
            f"{self.partial_writes} fell inside a partial write"
        )


def cancel_at_every_step(
    scenario: Scenario,
    *,
    name: str | None = None,
    timeout: float = 3600.0,
    stride: int = 1,
    repeats: int = 1,
    max_points: int = 10_000,
) -> SweepReport:
    """Run `scenario` once per point, cancelling its target there; fail if a run goes wrong.

    Every run is a `trio.run` of its own on an autojumping `trio.testing.MockClock`, so call this
    from a plain, synchronous test. The scenario sets the stage, does what is to be swept inside
    ``async with target:``, and afterwards, outside and uncancelled, asserts what must hold
    however far it came::

        def test_send_is_atomic() -> None:
            async def scenario(target: Target) -> None:
                near, far = trio.testing.memory_stream_pair()
                slow = ChunkedStream(near, 3)
                target.watch(slow)
                ...
                async with target:
                    await ws.send("hello")
                ...

            report = cancel_at_every_step(scenario)
            assert report.partial_writes

    A run fails if the scenario raises; if it is not over after `timeout` virtual seconds (it is
    then torn down by force, shielded tasks included, and the stacks are in the message); if it
    leaves tasks behind; if the block swallowed a Cancelled that had been delivered to its task; or
    if it never entered its target. The sweep ends when a few points in a row lie behind the end.

    Args:
        scenario: an async function of one `Target`; must build everything afresh.
        name: what report and failures call it; the function's own name if None.
        timeout: virtual seconds for one run.
        stride: visit only every so manieth point.
        repeats: runs for each point, because trio's order of ready tasks is random.
        max_points: give up with SweepFailure at this point: the scenario does not end.

    Raises:
        SweepFailure: some run failed.
    """
    return _sweep(
        scenario,
        Target,
        name=name,
        timeout=timeout,
        stride=stride,
        repeats=repeats,
        max_points=max_points,
    )


def interrupt_at_every_step(
    scenario: Scenario,
    *,
    inside: str | None = None,
    name: str | None = None,
    timeout: float = 3600.0,
    stride: int = 1,
    repeats: int = 1,
    max_points: int = 20_000,
) -> SweepReport:
    """Like `cancel_at_every_step`, but raise SIGINT, so that KeyboardInterrupt strikes.

    Between two steps trio hands the interrupt to the main task, which is the scenario's own, at its
    next checkpoint. With `inside`, a path, the points are instead the single lines of Python
    executed in files whose path contains it: there the interrupt strikes whichever task is
    running, unless it runs under `trio.lowlevel.enable_ki_protection`. Headers of ``with`` are left
    out, because Python handles no signal between the end of a block and its ``__exit__``.

    ``async with target:`` catches the KeyboardInterrupt (also in a group with nothing but
    Cancelled beside it) and sets `Target.interrupted`; a run in which the interrupt was raised and
    never came out fails. Works only in the main thread with Python's own SIGINT handler in place.
    With `inside` a tracer such as coverage is suspended for the time of each run.
    """

    def make(point: int) -> Target:
        return InterruptTarget(point, inside=inside)

    return _sweep(
        scenario,
        make,
        name=name,
        timeout=timeout,
        stride=stride,
        repeats=repeats,
        max_points=max_points,
    )


def _sweep(
    scenario: Scenario,
    make: Callable[[int], Target],
    *,
    name: str | None,
    timeout: float,
    stride: int,
    repeats: int,
    max_points: int,
) -> SweepReport:
    own: str = getattr(scenario, "__qualname__", repr(scenario))
    called = name or own.replace(".<locals>.", ": ")
    runs = points = delivered = partial_writes = quiet = point = 0
    while quiet < _QUIET_RUNS:
        if point > max_points:
            raise SweepFailure(f"{called}: still not finished at point {point}")
        fired = False
        for _ in range(repeats):
            target = make(point)
            _run_once(scenario, target, timeout, f"{called}, point {point}")
            runs += 1
            points += target.fired
            delivered += target.delivered
            partial_writes += target.in_partial_write
            fired = fired or target.fired
        quiet = 0 if fired else quiet + 1
        point += stride
    return SweepReport(
        name=called,
        runs=runs,
        points=points,
        delivered=delivered,
        partial_writes=partial_writes,
    )


def _run_once(scenario: Scenario, target: Target, timeout: float, where: str) -> None:
    complaints: list[str] = []
    watchdogs: list[Watchdog] = []

    async def main() -> None:
        watchdog = Watchdog(timeout, trio.lowlevel.current_task())
        watchdogs.append(watchdog)
        trio.lowlevel.spawn_system_task(watchdog.run)
        await trio.testing.wait_all_tasks_blocked()
        before = trio.lowlevel.current_statistics().tasks_living
        with watchdog.guard:
            await scenario(target)
        left = trio.lowlevel.current_statistics().tasks_living - before
        if left > 0:
            complaints.append(f"{left} tasks were left behind")

    clock = trio.testing.MockClock(autojump_threshold=0)
    error: BaseException | None = None
    try:
        with target.tracing():
            trio.run(main, clock=clock, instruments=[target.instrument])
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt) and not target.fired:
            raise
        error = exc
    if watchdogs and watchdogs[0].report:
        complaints.append(f"not over after {timeout} virtual seconds\n{watchdogs[0].report}")
    elif error is not None:
        complaints.append(f"{type(error).__name__}: {error}{_leaves(error)}")
    else:
        complaints += target.complaints()
    if complaints:
        raise SweepFailure(f"{where}{target.fired_in}: " + "; ".join(complaints)) from error


def _leaves(exc: BaseException) -> str:
    if not isinstance(exc, BaseExceptionGroup):
        return ""
    found: list[str] = []
    todo: list[BaseException] = [exc]
    while todo:
        leaf = todo.pop()
        if isinstance(leaf, BaseExceptionGroup):
            todo += leaf.exceptions
        else:
            found.append(f"{type(leaf).__name__}: {leaf}")
    return " [" + "; ".join(found) + "]"
