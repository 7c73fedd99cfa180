"""The clocks of one connection: tables of ticks, and what each says.

Lives here: `_vigil`, second by second. Must never live here: an event loop (see test_attendant).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trio_ws import Limits
from trio_ws._pings import PendingPing
from trio_ws._vigil import JITTER, Signs, Verdict, Vigil, tick_of

QUIET = Signs(
    bytes_in=0,
    moved=False,
    written=0,
    spoken=0,
    composing=False,
    paused=False,
    waiting=False,
    unacknowledged=0,
    eof=False,
)
NOTHING, PING, NO_LIFE, NO_PROGRESS, EOF_UNREPORTED, IDLE, TOO_OLD = Verdict


class Watch:
    """A vigil and its caller: ticks come as told, pings leave at once unless `stuck`."""

    def __init__(self, limits: Limits | None = None, *, chance: float = 0.0, tick: float = 1.0):
        self.now = 100.0  # no clock begins at zero
        self.tick = tick
        self.vigil = Vigil(limits or Limits(), self.now, chance)
        self.signs = QUIET
        self.stuck = False
        self.pings = 0

    def step(self, seconds: float | None = None, **signs: Any) -> Verdict:
        """One tick, by default when it is due; `signs` stay as they are until changed."""
        self.now += self.tick if seconds is None else seconds
        self.signs = replace(self.signs, **signs)
        verdict = self.vigil.tick(self.now, self.signs, self.tick)
        if verdict is PING:
            self.pings += 1
            self.vigil.ping = PendingPing(b"%d" % self.pings)
            self.vigil.ping.sent_at = None if self.stuck else self.now
        self.signs = replace(self.signs, moved=False)
        return verdict

    def until(self, wanted: Verdict, within: float = 1000) -> float:
        """Seconds since the beginning at which `wanted` comes; no other verdict but PING before."""
        while self.now < 100 + within:
            verdict = self.step()
            if verdict is wanted:
                return self.now - 100
            assert verdict in (NOTHING, PING), verdict
        raise AssertionError(f"no {wanted} within {within} s")

    def silent(self, seconds: float) -> None:
        """Ticks of which none says anything."""
        end = self.now + seconds
        while self.now < end:
            assert self.step() is NOTHING


# -- the first clock -----------------------------------------------------------------------------


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999])
def test_a_ping_is_due_after_the_interval_less_a_tenth_by_chance(chance: float) -> None:
    """At the last tick before `ping_interval`, less the jitter, has passed without life."""
    watch = Watch(chance=chance, tick=0.25)
    due = 20 * (1 - JITTER * chance)
    assert due - 0.25 < watch.until(PING) <= due


@pytest.mark.row("E8")
@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999])
@pytest.mark.parametrize("tick", [1.0, 0.7, 0.013])
def test_silence_is_death_at_interval_plus_timeout_never_earlier(
    chance: float, tick: float
) -> None:
    """However early the ping went out: 40 s after the last sign, and at most one tick."""
    watch = Watch(chance=chance, tick=tick)
    ended = watch.until(NO_LIFE)
    assert ended >= 40 - 1e-6
    assert ended <= 40 + tick + 1e-6
    assert watch.pings == 1


def test_the_pings_clock_starts_when_it_has_left() -> None:
    """A ping that waits in the outbox cannot be answered: no verdict of this clock."""
    watch = Watch()
    watch.stuck = True
    assert watch.until(PING) == 20
    watch.silent(100)
    assert watch.vigil.ping is not None
    watch.vigil.ping.sent_at = watch.now
    assert watch.until(NO_LIFE) == 20 + 100 + 20


@pytest.mark.row("E14")
def test_nor_while_it_stands_in_the_kernels_queue() -> None:
    """As long as the peer's kernel takes what is before it; then its clock runs."""
    watch = Watch()
    assert watch.until(PING) == 20
    for left in range(200, 0, -1):
        assert watch.step(unacknowledged=left * 10_000) is NOTHING
    assert watch.until(NO_LIFE) == 20 + 200 + 20


@pytest.mark.row("E8")
def test_a_queue_that_does_not_move_is_no_excuse() -> None:
    """Nor one that is empty: a kernel that acknowledges is no application that answers."""
    for queue in ([6] * 40, [6, *([0] * 39)], [9000] * 40):
        watch = Watch()
        assert watch.until(PING) == 20
        lost = [watch.step(unacknowledged=bytes_) for bytes_ in queue].index(NO_LIFE)
        assert lost == 19


@pytest.mark.parametrize("life", ["bytes", "moved"])
def test_any_life_answers_a_ping(life: str) -> None:
    """A byte from the peer, or a byte that a full send buffer took: the interval begins anew."""
    watch = Watch()
    assert watch.until(PING) == 20
    watch.silent(19)
    assert watch.step(**({"bytes_in": 1} if life == "bytes" else {"moved": True})) is NOTHING
    assert watch.until(PING) == 40 + 20
    assert watch.until(NO_LIFE) == 40 + 40


def test_who_answers_stays() -> None:
    """A day of pings, each answered at the last moment."""
    watch = Watch()
    for answer in range(1, 2160):
        while watch.step() is not PING:
            pass
        watch.silent(19)
        assert watch.step(bytes_in=answer) is NOTHING
    assert watch.pings == 2159


def test_without_a_timeout_one_ping_waits_for_ever() -> None:
    """`ping_timeout=None`: no verdict, and no second ping before a sign of life."""
    watch = Watch(Limits(ping_timeout=None))
    assert watch.until(PING) == 20
    watch.silent(500)
    assert watch.step(bytes_in=1) is NOTHING
    watch.silent(19)
    assert watch.step() is PING


def test_without_an_interval_nothing_is_asked() -> None:
    """`ping_interval=None`: no pings, so no verdict about silence."""
    Watch(Limits(ping_interval=None)).silent(500)


def test_a_ping_that_cannot_leave_is_not_followed_by_another() -> None:
    """A peer that talks and never reads must not fill the outbox with our pings."""
    watch = Watch(Limits(ping_timeout=None))
    watch.stuck = True
    assert watch.until(PING) == 20
    for talk in range(1, 200):
        assert watch.step(bytes_in=talk, waiting=True) is NOTHING
        watch.silent(30)
    assert watch.pings == 1


# -- pauses --------------------------------------------------------------------------------------


@pytest.mark.row("E6")
def test_no_verdict_about_silence_while_we_do_not_read() -> None:
    """Neither a ping nor an end, for as long as it takes."""
    watch = Watch()
    watch.step(paused=True)
    watch.silent(1000)


@pytest.mark.row("E6")
def test_the_pings_clock_restarts_when_reading_resumes() -> None:
    """The whole `ping_timeout` again, counted from the resumption, never from before it."""
    watch = Watch()
    assert watch.until(PING) == 20
    watch.silent(15)
    watch.step(paused=True)
    watch.silent(100)
    assert watch.step(paused=False) is NOTHING
    resumed = watch.now - 100
    assert watch.until(NO_LIFE) == resumed + 20


# -- the second clock ----------------------------------------------------------------------------


@pytest.mark.row("E4")
def test_a_deaf_peer_is_lost_however_chatty() -> None:
    """Bytes wait and none leaves for `ping_timeout`, counted from the tick that first saw them."""
    watch = Watch()
    watch.silent(7)
    for second in range(21):
        verdict = watch.step(bytes_in=second + 1, waiting=True)
        assert verdict is (NO_PROGRESS if second == 20 else NOTHING)


@pytest.mark.row("E14")
def test_a_slow_reader_stays() -> None:
    """One byte of progress every 19 s is progress."""
    watch = Watch()
    for turn in range(1, 50):
        for _ in range(18):
            assert watch.step(waiting=True) in (NOTHING, PING)
        assert watch.step(written=turn, moved=True) is NOTHING


def test_an_outbox_that_empties_between_the_ticks_is_not_stuck() -> None:
    """Bytes wait at every tick, others each time."""
    watch = Watch(Limits(ping_interval=None))
    for tick in range(100):
        assert watch.step(waiting=True, written=tick) is NOTHING


def test_the_second_clock_runs_while_we_do_not_read() -> None:
    """Not reading is our choice; not being read is the peer's."""
    watch = Watch()
    watch.step(paused=True, waiting=True)
    assert watch.until(NO_PROGRESS) == 21


# -- ends that are no fault ----------------------------------------------------------------------


def test_an_unreported_eof_ends_after_close_timeout() -> None:
    """From the tick that saw it; no ping is sent to who said that nothing more comes."""
    watch = Watch(Limits(close_timeout=30))
    watch.silent(5)
    watch.step(eof=True)
    assert watch.until(EOF_UNREPORTED) == 6 + 30
    assert watch.pings == 0


@pytest.mark.parametrize("sign", ["spoken", "composing"])
def test_idle_counts_messages(sign: str) -> None:
    """Not bytes, so that pings and pongs do not count; a message on its way does."""
    watch = Watch(Limits(idle_timeout=50, ping_interval=None))
    for second in range(1, 49):
        assert watch.step(bytes_in=second) is NOTHING
    assert watch.step(**{sign: True}) is NOTHING
    spoken_at = watch.now - 100
    watch.step(composing=False)
    assert watch.until(IDLE) == spoken_at + 50


def test_lifetime_counts_nothing() -> None:
    """Not life, not talk: age."""
    watch = Watch(Limits(max_lifetime=60))
    for second in range(1, 60):
        assert watch.step(bytes_in=second, spoken=second) is NOTHING
    assert watch.step(bytes_in=60, spoken=60) is TOO_OLD


# -- a clock that jumps --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "signs"),
    [
        (30, {}),  # a ping is out
        (10, {"waiting": True}),
        (30, {"eof": True}),
        (10, {"spoken": 1}),
    ],
    ids=["ping", "write", "eof", "idle"],
)
def test_a_late_tick_is_no_evidence(before: int, signs: dict[str, Any]) -> None:
    """The process was stopped for an hour: no verdict then, and the usual ones afterwards."""
    watch = Watch(Limits(idle_timeout=39, close_timeout=35))
    for _ in range(before):
        watch.step()
    watch.step(**signs)
    assert watch.step(3600) is NOTHING
    verdicts = {watch.step() for _ in range(60)} - {NOTHING, PING}
    assert verdicts, "dead is dead, after the hour as before"


def test_lifetime_goes_on_while_we_are_stopped() -> None:
    """It bounds credentials, not patience."""
    watch = Watch(Limits(max_lifetime=60))
    assert watch.step(3600) is TOO_OLD


def test_a_tick_a_little_late_counts() -> None:
    """Up to twice its due: a loop that is always somewhat late still finds the dead."""
    watch = Watch()
    while watch.step(1.9) is not NO_LIFE:
        assert watch.now < 200
    assert 140 <= watch.now <= 144


# -- the pace ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        (Limits(), 1.0),
        (Limits(ping_interval=None, ping_timeout=None), 1.0),
        (Limits(ping_timeout=2), 0.5),
        (Limits(idle_timeout=0.4), 0.1),
        (Limits(max_lifetime=0.04), 0.01),
        (Limits(close_timeout=0.3), 0.3),
    ],
)
def test_the_tick_is_a_second_or_a_quarter_of_the_shortest_clock(
    limits: Limits, seconds: float
) -> None:
    assert tick_of(limits) == pytest.approx(seconds)
