from pathlib import Path

import av
import numpy as np
import pytest

from flywheel.core.errors import FlywheelError
from flywheel.report.videos import write_video


def test_a_browser_can_play_it(tmp_path: Path) -> None:
    frames = [np.full((32, 48, 3), 10 * i, np.uint8) for i in range(20)]
    write_video(tmp_path / "new" / "a.mp4", frames, 20)
    with av.open(str(tmp_path / "new" / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.average_rate) == ("h264", "yuv420p", 20)
        seen = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(seen) == 20
    np.testing.assert_allclose([picture.mean() for picture in seen], [picture.mean() for picture in frames], atol=3)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]


def test_odd_sizes_and_no_pictures_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="even"):
        write_video(tmp_path / "a.mp4", [np.zeros((31, 48, 3), np.uint8)], 20)
    with pytest.raises(FlywheelError, match="no pictures"):
        write_video(tmp_path / "a.mp4", [], 20)
