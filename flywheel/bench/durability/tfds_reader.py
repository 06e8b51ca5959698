"""Read stores with nothing but TFDS: a path a line on standard input, a line of JSON on standard output.

Run as a script in a process of its own, as TensorFlow takes seconds to start and must not be in a process that forks.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys

tfds = importlib.import_module("tensorflow_datasets")  # by name: the package itself never needs TensorFlow


def main() -> None:
    """Answer every path with {episode id: hash of its arrays}, or with {"error": what TFDS said}."""
    for line in sys.stdin:
        try:
            builder = tfds.builder_from_directory(line.strip())
            answer = {}
            # Without decoding, the steps are one tensor per field instead of a nested data set.
            for episode in builder.as_dataset(split="train", decoders={"steps": tfds.decode.SkipDecoding()}):
                steps = episode["steps"]
                arrays = (steps["observation"]["state"], steps["action"], steps["reward"])
                digest = hashlib.sha256(b"".join(array.numpy().tobytes() for array in arrays)).hexdigest()
                name = episode["episode_metadata"]["episode_id"].numpy().decode()
                answer[name] = "doubled" if name in answer else digest
        except Exception as error:  # whatever TFDS raises is the answer
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
