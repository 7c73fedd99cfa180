"""A line to type on while messages come in above it.

Lives here: the keys (`Line`, which knows no terminal), the screen, and the terminal's modes. Must
never live here: WebSockets, or text that was not made printable before.

Theory. With the terminal's own line editing a message that arrives while somebody types lands in
the middle of the words. So the terminal gives us each key as it comes (no ICANON, no ECHO; signals
stay with the terminal), and what is typed is drawn again below whatever was printed. The modes
found at the start come back however the block is left, and while the program is suspended. Nothing
reads the terminal through Python's own buffers: a thread that waits there cannot be left behind.
"""

from __future__ import annotations

import codecs
import os
import shutil
import signal
import sys
import unicodedata
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .words import shown_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

termios: ModuleType | None
try:
    import termios
except ImportError:  # Windows: lines, edited by the console
    termios = None

PROMPT: Final = "> "
END_OF_INPUT: Final = "\x04"
LFLAGS: Final = 3
"""Where the local modes stand in what `termios.tcgetattr` returns, and behind them (at 6) the
control characters."""


class Line:
    """What is being typed. Keys in, finished lines out.

    Backspace, Ctrl-U (all), Ctrl-W (a word), up and down (earlier lines), Ctrl-D on an empty line
    (the end). Other control keys do nothing.
    """

    def __init__(self) -> None:
        self.text = ""
        self.ended = False
        self._history: list[str] = []
        self._at = 0
        self._escape = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> list[str]:
        """Take in what the keyboard sent; returns the lines finished by it."""
        finished: list[str] = []
        for char in self._decoder.decode(data):
            if self.ended:
                break
            if self._escape or char == "\x1b":
                self._take_escape(char)
            elif char in "\r\n":
                finished.append(self.text)
                if self.text:
                    self._history.append(self.text)
                self._at, self.text = len(self._history), ""
            else:
                self._take(char)
        return finished

    def _take(self, char: str) -> None:
        if char in "\x7f\b":
            self.text = self.text[:-1]
        elif char == "\x15":
            self.text = ""
        elif char == "\x17":
            self.text = self.text.rstrip().rpartition(" ")[0]
            self.text += " " if self.text else ""
        elif char == END_OF_INPUT:
            self.ended = not self.text
        elif char == "\t" or char >= " ":
            self.text += char

    def _take_escape(self, char: str) -> None:
        """ESC [ ... letter, or ESC O letter: a key without a character."""
        self._escape += char
        if len(self._escape) == 1 or self._escape in ("\x1b[", "\x1bO"):
            return
        if self._escape.startswith("\x1b[") and not "@" <= char <= "~":
            return
        if self._escape[1] in "[O" and char in "AB":
            self._at = max(0, min(len(self._history), self._at + (1 if char == "B" else -1)))
            self.text = "" if self._at == len(self._history) else self._history[self._at]
        self._escape = ""


def tail(text: str, columns: int) -> str:
    """As much of the end of `text` as fits into so many columns."""
    taken = 0
    for index in range(len(text) - 1, -1, -1):
        wide = unicodedata.east_asian_width(text[index]) in "WF"
        taken += 2 if wide else not unicodedata.combining(text[index])
        if taken > columns:
            return text[index + 1 :]
    return text


class Terminal:
    """The screen: lines above, what is typed below. Made by `open_terminal`."""

    def __init__(self, descriptor: int) -> None:
        assert termios is not None
        self.line = Line()
        self._descriptor = descriptor
        self._found: list[Any] = termios.tcgetattr(descriptor)

    def enter(self) -> None:
        """Each key as it comes, and no echo of it."""
        assert termios is not None
        modes = termios.tcgetattr(self._descriptor)
        modes[LFLAGS] &= ~(termios.ICANON | termios.ECHO)
        modes[6] = [*modes[6]]
        modes[6][termios.VMIN], modes[6][termios.VTIME] = 1, 0
        # Not flushed: what was typed before the prompt came counts.
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, modes)

    def leave(self) -> None:
        """The modes as they were found, and a clean line."""
        assert termios is not None
        self._put("\r\x1b[K")
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._found)

    def suspend(self) -> None:
        """Stop as Ctrl-Z asks, with the terminal as it was; returns when brought back."""
        self.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.enter()
        self.draw()

    def show(self, text: str) -> None:
        """Print a line of printable text above what is being typed."""
        self._put(f"\r\x1b[K{text}\n")
        self.draw()

    def draw(self) -> None:
        """Draw what is being typed."""
        room = shutil.get_terminal_size().columns - len(PROMPT) - 1
        self._put(f"\r\x1b[K{PROMPT}{tail(shown_untrusted(self.line.text), room)}")

    def typed(self, data: bytes) -> list[str]:
        """Take in keys and show what they did; returns finished lines, already shown."""
        finished = self.line.feed(data)
        for text in finished:
            self._put(f"\r\x1b[K{PROMPT}{shown_untrusted(text)}\n")
        self.draw()
        return finished

    def _put(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()


def is_interactive() -> bool:
    """Whether a person sits at both ends, and their terminal can draw a line again."""
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return termios is not None and not dumb and os.isatty(0) and os.isatty(1)


@contextmanager
def open_terminal() -> Iterator[Terminal]:
    """The terminal at descriptor 0, ours for the time of the block."""
    terminal = Terminal(0)
    terminal.enter()
    try:
        terminal.draw()
        yield terminal
    finally:
        terminal.leave()
