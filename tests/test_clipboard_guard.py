"""The line of script that guards the clipboard: where it goes, and that nothing else changes."""

import time

import pytest

from jupyter_sandbox.previews.clipboard_guard import guard, guarded, guarded_size

SCRIPT = guard(b"")[1]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "<p>no doctype"),
        ("<!doctype html>", "<html>"),
        ('\n <!DOCTYPE html PUBLIC "-//W3C//DTD HTML 4.01//EN">', "<html>"),
        ("<!-- saved from -->\n<!doctype html>", "<p>"),
        ("<!----><!--x--!><!doctype html>", "<p>"),
        ("\ufeff<!doctype html>", "<p>"),
        ("", "<!--><script>evil</script>--><!doctype html>"),  # this comment has ended already
        ("", "<!---><script>evil</script>--><!doctype html>"),
        ("", "<!-- a > b --><!doctype html>"),
        ("", "<!--\x1b$B-->\x1b(B--><!doctype html>"),  # two characters of ISO-2022-JP
        ("<!doctype html '>", "<script>evil</script>'>"),
        ("", "<script>evil</script><!doctype html>"),
        ("", "<!doctype"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_it_comes_after_the_doctype_and_before_anything_that_could_be_a_script(
    before, after, encoding
):
    if encoding != "utf-8" and not before.startswith("\ufeff"):
        before = f"\ufeff{before}"  # what says that it is UTF-16
    at, script = guard((before + after).encode(encoding))
    assert at == len(before.encode(encoding))
    assert script.decode(encoding) == SCRIPT.decode()


@pytest.mark.parametrize("size", [1, 100, 4096, 10_000])
async def test_the_rest_of_the_page_stays_as_it_is_however_it_is_cut(size):
    page = b"<!doctype html><p>" + bytes(range(128)) * 100

    async def pieces():
        for start in range(0, len(page), size):
            yield page[start : start + size]

    got = b"".join([piece async for piece in guarded(pieces())])
    assert got == page[:15] + SCRIPT + page[15:]
    assert len(got) == guarded_size(len(page), page)


async def test_an_empty_page_is_only_the_line():
    async def pieces():
        return
        yield b""

    assert [piece async for piece in guarded(pieces())] == [SCRIPT]


@pytest.mark.parametrize("piece", ["<!--", "<!---->", "-", " ", "<!doctype", "--", "<!--a-->"])
def test_a_hostile_beginning_takes_no_time(piece):
    started = time.process_time()
    guard((piece * 4096).encode()[:4096])
    assert time.process_time() - started < 0.1


def test_it_is_short():
    """A page's own ``<meta charset>`` must stand in the first 1,024 bytes."""
    assert len(SCRIPT) < 420
