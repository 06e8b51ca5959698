"""Convert a data set from v2.1 to v3.0 with LeRobot's own converter: lerobot_convert.py FOLDER (which the old one leaves)."""

import sys
from pathlib import Path

from lerobot.datasets.v30.convert_dataset_v21_to_v30 import convert_dataset

folder = Path(sys.argv[1])
convert_dataset(f"{folder.parent.name}/{folder.name}", root=folder.parents[1], push_to_hub=False)
