from __future__ import annotations

import pytest

from reproductions.progress import progress


def test_a_log_gets_a_line_for_every_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    show = progress("updates")
    for done in range(0, 1001, 10):
        show(done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11
    assert (lines[0], lines[-1]) == ("0 of 1000 updates", "1000 of 1000 updates")
