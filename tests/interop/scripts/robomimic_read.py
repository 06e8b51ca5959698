"""Every row of a file as robomimic gives it: robomimic_read.py FILE PICTURES(comma-separated) OUTPUT."""

import sys

import h5py
import numpy as np
import robomimic.utils.file_utils as file_utils
import robomimic.utils.obs_utils as obs_utils
from robomimic.utils.dataset import SequenceDataset

path, pictures, output = sys.argv[1:]
with h5py.File(path) as file:
    keys = sorted(file["data/demo_0/obs"])
rgb = [key for key in pictures.split(",") if key]
low_dim = [key for key in keys if key not in rgb]
obs_utils.initialize_obs_utils_with_obs_specs({"obs": {"low_dim": low_dim, "rgb": rgb}})
arrays = {}
for mask in (None, "success"):
    dataset = SequenceDataset(
        hdf5_path=path, obs_keys=keys, dataset_keys=["actions", "rewards", "dones"], filter_by_attribute=mask, load_next_obs=True
    )
    rows = [dataset[number] for number in range(len(dataset))]
    for key in ("actions", "rewards", "dones"):
        arrays[f"{mask}/{key}"] = np.concatenate([row[key] for row in rows])
    for group in ("obs", "next_obs"):
        for key in keys:
            arrays[f"{mask}/{group}/{key}"] = np.concatenate([row[group][key] for row in rows])
assert file_utils.get_env_metadata_from_dataset(path)["env_name"]
assert file_utils.get_shape_metadata_from_dataset(path)["ac_dim"]
np.savez(output, **arrays)
