"""Who is in one room: here and, as far as is known, in the other processes.

Lives here: taking a nickname, giving it back, and which of two claims counts. Not one `await`: it
is told what others say (`lobby.py` listens) and never waits. Must never live here: connections.

Every process says now and then which seats of the room are taken in it; what all of them said last
is who is here. Nobody counts comings and goings, so a lost word is mended by the next one. A seat
belongs to who took it first; but a page that comes back, as its proof shows, takes its own over.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import trio
from events import Refused, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISSED_BEATS = 3  # of a process, until it counts as dead; counted in our own beats: no clocks
REPLACED = (4001, "you went on in another window")
TOO_LATE = (4000, "this nickname was taken at the same time, please choose another")
RECENT = 10_000  # milliseconds: what was said before that by somebody may be a dead one's word


class Claim(NamedTuple):
    """That a seat is taken: the nickname, whose it is, when they came first, and last."""

    nickname: str
    proof: str
    came: int
    since: int

    def beats(self, other: Claim) -> bool:
        """Whether this one counts and not the other, for the same nickname."""
        if self.proof == other.proof:
            return self.since > other.since
        return (self.came, self.proof) < (other.came, other.proof)


class Seat:
    """A seat that is taken in this process."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.scope = trio.CancelScope()  # around everything that serves this member
        self.ending: tuple[int, str] | None = None  # code and reason, once `end` was called

    def end(self, code: int, reason: str) -> None:
        """Stop serving this member, from outside and without waiting."""
        self.ending = (code, reason)
        self.scope.cancel()


class Presence:
    """The seats of one room. `tell` is called with "joined" or "left", and a nickname."""

    def __init__(self, process: str, tell: Callable[[str, str], None]) -> None:
        self._process = process
        self._tell = tell
        self._seats: dict[str, Seat] = {}  # by nickname, upper and lower case alike
        self._elsewhere: dict[str, dict[str, Claim]] = {}  # by process
        self._unheard: dict[str, int] = {}  # our beats since that process was heard
        self._known: dict[str, Claim] = {}
        self.changed = trio.Event()  # the seats of this process have
        self.frozen = False  # this process ends: its members turn up elsewhere, and never left

    @property
    def nicknames(self) -> list[str]:
        """Who is here, in the order of arrival."""
        return [claim.nickname for claim in sorted(self._known.values(), key=lambda c: c.came)]

    def __len__(self) -> int:
        """Seats taken in this process."""
        return len(self._seats)

    @contextmanager
    def sit(self, nickname: str, proof: str) -> Iterator[Seat]:
        """Take a seat for as long as the block. `Refused` if it is somebody else's.

        A connection that died unnoticed keeps its seat until the server finds out. So whoever
        returns with the same proof takes the old one's place, and nobody is told: nobody left.
        """
        key, since = nickname.casefold(), now()
        known = self._known.get(key, Claim(nickname, proof, since, since - 1))
        if known.proof != proof:
            raise Refused("this nickname is taken, please choose another")
        seat = Seat(known._replace(since=max(since, known.since + 1)))
        if key in self._seats:
            self._seats[key].end(*REPLACED)
        self._seats[key] = seat
        self._change()
        try:
            yield seat
        finally:
            if self._seats.get(key) is seat:
                del self._seats[key]
                self._change()

    def _change(self) -> None:
        self.changed.set()
        self._settle()

    def word(self, *, beat: bool) -> str:
        """What the other processes are told."""
        here = {key: seat.claim for key, seat in self._seats.items()}
        return json.dumps({"process": self._process, "at": now(), "beat": beat, "here": here})

    def hear(self, word: str | bytes, *, old: bool = False) -> None:
        """Listen to such a word, our own too. `old`: it was said before we listened."""
        said: dict[str, Any] = json.loads(word)
        process = said["process"]
        if old and now() - said["at"] > RECENT:
            return
        if process != self._process:
            self._unheard[process] = 0
            self._elsewhere[process] = {key: Claim(*told) for key, told in said["here"].items()}
        elif said["beat"]:
            self._count_beat()
        self._settle()

    def _count_beat(self) -> None:
        for process in list(self._unheard):
            self._unheard[process] += 1
            if self._unheard[process] > MISSED_BEATS:
                del self._unheard[process], self._elsewhere[process]

    def _settle(self) -> None:
        """Find out who is here now, tell what has changed, and end seats that somebody else has."""
        if self.frozen:
            return
        found = {key: seat.claim for key, seat in self._seats.items()}
        for claims in self._elsewhere.values():
            for key, claim in claims.items():
                if key not in found or claim.beats(found[key]):
                    found[key] = claim
        for key, seat in list(self._seats.items()):
            if found[key] is not seat.claim:
                del self._seats[key]
                same = found[key].proof == seat.claim.proof
                seat.end(*(REPLACED if same else TOO_LATE))
                self.changed.set()
        known, self._known = self._known, found
        for kind, more, less in (("left", known, found), ("joined", found, known)):
            for key in more.keys() - less.keys():
                self._tell(kind, more[key].nickname)
