"""The bar: drawn where a terminal is, as often as eyes follow, and out of the way of lines."""

from __future__ import annotations

import io

from ingestd.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def drawn(terminal: Terminal) -> list[str]:
    """What stood on the line, one after the other."""
    return [text.removesuffix("\x1b[K") for text in terminal.getvalue().split("\r")[1:]]


def test_the_bar_tells_part_bytes_rate_and_what_is_left() -> None:
    now, terminal = [100.0], Terminal()
    progress = Progress(terminal, lambda: now[0])
    now[0] = 102.0
    progress(1_000_000_000, 4_000_000_000)
    now[0] = 400.0
    progress(4_000_000_000, 4_000_000_000)
    assert drawn(terminal) == [
        "[######..................]  25%  1.00 of 4.00 GB  500 MB/s  0:06 left",
        "[########################] 100%  4.00 of 4.00 GB  13 MB/s  0:00 left",
    ]


def test_it_is_not_drawn_more_often_than_ten_times_a_second() -> None:
    now, terminal = [0.0], Terminal()
    progress = Progress(terminal, lambda: now[0])
    for tick in range(1000):
        now[0] = tick / 1000
        progress(tick, 1000)
    assert 8 <= len(drawn(terminal)) <= 10


def test_it_leaves_the_line_to_others_and_comes_back() -> None:
    now, terminal = [0.0], Terminal()
    progress = Progress(terminal, lambda: now[0])
    progress.clear()
    for now[0] in (1.0, 2.0):
        progress(1, 2)
        progress.clear()
        progress.clear()
    assert [bool(text) for text in drawn(terminal)] == [True, False, True, False]


def test_where_there_is_no_terminal_nothing_is_written() -> None:
    stream = io.StringIO()
    progress = Progress(stream, lambda: float(len("any")))
    progress(1, 2)
    progress.clear()
    assert stream.getvalue() == ""


def test_nothing_to_do_and_more_than_there_was_are_drawn_too() -> None:
    now, terminal = [0.0], Terminal()
    progress = Progress(terminal, lambda: now[0])
    for now[0], done, total in ((1.0, 0, 0), (2.0, 9, 5)):
        progress(done, total)
    assert drawn(terminal)[0].startswith("[........................]   0%")
    assert drawn(terminal)[1].startswith("[########################] 100%")
