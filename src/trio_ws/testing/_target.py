"""The machinery of the sweep: the swept region, the step counter, the watchdog over hangs.

Lives here: what happens inside one run. Must never live here: the loop over runs (see `_sweep`).
"""

from __future__ import annotations

import functools
import linecache
import signal
import sys
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Self, cast

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType, TracebackType

    from ._streams import PartialWriter

__all__ = ["InterruptTarget", "Target", "Watchdog"]


class Target:
    """The part of a scenario that is swept: whatever runs inside ``async with target:``.

    Enter it once per run. Around it a cancel scope is cancelled at the point whose turn it is;
    Cancelled stops at the end of the block, as with every scope.

    Attributes:
        fired: whether the cancellation (or interrupt) of this run has happened.
        fired_at: when, on trio's clock; None before.
        fired_in: the line an interrupt struck, where lines are the points.
        in_partial_write: whether that was inside a partial write of a watched stream.
        delivered: whether it woke the target's own task out of a wait.
        interrupted: whether the block ended by KeyboardInterrupt (`interrupt_at_every_step`).
    """

    def __init__(self, point: int) -> None:
        self.fired = False
        self.fired_at: float | None = None
        self.fired_in = ""
        self.in_partial_write = False
        self.delivered = False
        self.interrupted = False
        self.instrument = _StepCounter(self)
        self._point = point
        self._scope = trio.CancelScope()
        self._watched: list[PartialWriter] = []
        self._task: trio.lowlevel.Task | None = None
        self._entered = False
        self._counting = False
        self._firing = False
        self._swallowed = False

    @property
    def cancelled(self) -> bool:
        """Whether the block ended by the cancellation (it may also finish just before it)."""
        return self._scope.cancelled_caught

    def watch(self, *streams: PartialWriter) -> None:
        """Count cancellations that fall inside a partial write of one of these streams."""
        self._watched += streams

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a Target can be entered only once per run")
        self._entered = True
        self._task = trio.lowlevel.current_task()
        self._scope.__enter__()
        self._counting = True
        self.tick()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._counting = False
        self._swallowed = self.delivered and exc is None
        return bool(self._scope.__exit__(exc_type, exc, traceback))

    def complaints(self) -> list[str]:
        """What was wrong with this run, apart from what the scenario asserts itself."""
        if not self._entered:
            return ["the scenario never entered its target"]
        if self._swallowed:
            return ["Cancelled was delivered inside the target and swallowed"]
        return []

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Around a whole run; only interrupts trace."""
        yield

    @trio.lowlevel.enable_ki_protection
    def tick(self) -> None:
        """One point has been reached."""
        if not self._counting or self.fired:
            return
        if self._point:
            self._point -= 1
            return
        self._fire()

    def _fire(self) -> None:
        self.fired = self._firing = True
        self.fired_at = trio.current_time()
        self.in_partial_write = any(stream.mid_write for stream in self._watched)
        try:
            self._strike()
        finally:
            self._firing = False

    def _strike(self) -> None:
        self._scope.cancel()

    def scheduled(self, task: trio.lowlevel.Task) -> None:
        """`task` became runnable; in the middle of `_strike` that is our doing."""
        if self._firing and task is self._task:
            self.delivered = True


class InterruptTarget(Target):
    """The target whose fate is SIGINT instead of cancellation (`interrupt_at_every_step`)."""

    def __init__(self, point: int, *, inside: str | None) -> None:
        super().__init__(point)
        self._inside = inside
        if inside is not None:
            self.instrument = _StepCounter(None)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._counting = False
        if exc is None and self.fired:
            try:  # an interrupt between two steps is delivered at the next checkpoint
                await trio.lowlevel.checkpoint()
            except KeyboardInterrupt:
                self.interrupted = True
        elif exc is not None and self.fired and _is_interrupt(exc):
            self.interrupted = True
            exc_type = exc = traceback = None
        swallowed = bool(self._scope.__exit__(exc_type, exc, traceback))
        return self.interrupted or swallowed

    def complaints(self) -> list[str]:
        if self.fired and not self.interrupted:
            return ["KeyboardInterrupt was raised inside the target and never came out"]
        return super().complaints()

    @contextmanager
    def tracing(self) -> Iterator[None]:
        if self._inside is None:
            yield
            return
        before = sys.gettrace()
        sys.settrace(self._trace)
        try:
            yield
        finally:
            sys.settrace(before)

    def _trace(self, frame: FrameType, *_: object) -> Any:
        inside = self._inside is not None and self._inside in frame.f_code.co_filename
        return self._trace_line if inside and not self.fired else None

    def _trace_line(self, frame: FrameType, event: str, *_: object) -> Any:
        if self.fired:
            return None
        code = frame.f_code
        if event != "line" or not self._counting or _is_with(code.co_filename, frame.f_lineno):
            return self._trace_line
        if self._point:
            self._point -= 1
            return self._trace_line
        self.fired_in = f" ({frame.f_code.co_filename}:{frame.f_lineno})"
        sys.settrace(None)  # what follows the interrupt need not be slow
        self._fire()
        return None

    def _strike(self) -> None:
        signal.raise_signal(signal.SIGINT)


class _StepCounter(trio.abc.Instrument):
    """Calls `Target.tick` at the end of each step and at the first one after a wait."""

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._waited = False

    def before_io_wait(self, timeout: float) -> None:  # noqa: ARG002
        self._waited = True

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        if self._waited and self._target is not None:
            self._waited = False
            self._target.tick()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002
        if self._target is not None:
            self._target.tick()

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        if self._target is not None:
            self._target.scheduled(task)


class _TornDown(BaseException):
    """Thrown into tasks that hang behind a shield, where no cancellation reaches them."""


class _TearDown:
    """What `trio.lowlevel.reschedule` takes: an outcome that raises. `outcome.Error` is the same,
    but that package is a dependency of trio's, not of ours."""

    def unwrap(self) -> NoReturn:
        raise _TornDown


class Watchdog:
    """Ends a run that hangs: by cancellation first, by force if a shield keeps that out.

    Attributes:
        report: the stacks of what hung, or "".
        guard: the cancel scope around the scenario.
    """

    def __init__(self, timeout: float, main: trio.lowlevel.Task) -> None:
        self.report = ""
        self.guard = trio.CancelScope()
        self._timeout = timeout
        self._main = main

    async def run(self) -> None:
        """A system task; cancelled by trio at the end of a run that does end."""
        await trio.sleep(self._timeout)
        self.report = stacks(self._main)
        self.guard.cancel()
        await trio.sleep(self._timeout)
        while True:
            self.report = f"(behind a shield)\n{stacks(self._main)}"
            for task in _family(self._main):
                if not any(nursery.child_tasks for nursery in task.child_nurseries):
                    trio.lowlevel.reschedule(task, cast("Any", _TearDown()))
            await trio.testing.wait_all_tasks_blocked()


def _family(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    todo = [task]
    while todo:
        task = todo.pop()
        yield task
        todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]


def stacks(main: trio.lowlevel.Task) -> str:
    """Where `main` and every task below it are, innermost frames last."""
    lines: list[str] = []
    for task in _family(main):
        lines.append(f"  task {task.name}:\n")
        walked = traceback.StackSummary.extract(iter(task.iter_await_frames()))
        lines += traceback.format_list(walked)[-8:]
    return "".join(lines)


@functools.cache
def _is_with(filename: str, line: int) -> bool:
    """Whether this line heads a ``with``. Tracing visits it a second time, between the end of the
    block and the call of ``__exit__``; a real signal is never handled there."""
    return linecache.getline(filename, line).lstrip().startswith(("with ", "async with "))


def _is_interrupt(exc: BaseException) -> bool:
    """Whether this is a KeyboardInterrupt, alone or with nothing but Cancelled beside it."""
    if isinstance(exc, BaseExceptionGroup):
        rest = exc.split(KeyboardInterrupt)[1]
        if rest is not None:
            rest = rest.split(trio.Cancelled)[1]
        return rest is None and exc.split(KeyboardInterrupt)[0] is not None
    return isinstance(exc, KeyboardInterrupt)
