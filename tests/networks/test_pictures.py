"""Encoders of pictures: every network and pooling, weights from a file, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from flywheel.core.errors import FlywheelError
from flywheel.networks.pictures import PictureConfig, PictureEncoder

NETWORKS = ["nature", "drq", "impala", "resnet18", "mobilenet_v3_small"]
POOLINGS = ["flatten", "average", "spatial_softmax", "spatial_embedding"]


def pictures(rows: int, height: int, width: int, channels: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    values = torch.randint(256, (rows, height, width, channels), generator=generator, dtype=torch.uint8)
    return values.permute(0, 3, 1, 2)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_with_every_pooling_gives_features_and_gradients(network: str, pooling: str) -> None:
    torch.manual_seed(0)
    encoder = PictureEncoder(PictureConfig(network=network, pooling=pooling, features=5, keypoints=4), (44, 60, 3))
    features = encoder(pictures(3, 44, 60, 3))
    assert features.shape == (3, 5)
    assert features.abs().max() <= 1.0
    features.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in encoder.parameters())


@pytest.mark.parametrize("network", ["nature", "resnet18"])
@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_numbers_of_channels_are_seen(network: str, channels: int) -> None:
    encoder = PictureEncoder(PictureConfig(network=network), (40, 40, channels))
    changed = pictures(2, 40, 40, channels).clone()
    changed[:, -1] = 255 - changed[:, -1]
    assert not torch.equal(encoder(pictures(2, 40, 40, channels)), encoder(changed))


def test_a_picture_is_seen_the_same_alone_and_among_others() -> None:
    torch.manual_seed(0)
    encoder = PictureEncoder(PictureConfig(network="resnet18"), (40, 40, 3)).eval()
    together = pictures(4, 40, 40, 3)
    torch.testing.assert_close(encoder(together)[2:3], encoder(together[2:3]), rtol=1e-4, atol=1e-5)


def test_spatial_softmax_finds_where_a_map_is_largest() -> None:
    encoder = PictureEncoder(PictureConfig(pooling="spatial_softmax", keypoints=1), (84, 84, 3))
    pool = encoder.pool
    with torch.no_grad():
        pool.maps.weight.zero_()
        pool.maps.weight[0, 0] = 50.0
        pool.maps.bias.zero_()
    maps = torch.zeros(1, 64, 7, 7)
    maps[0, 0, 6, 0] = 1.0  # the lowest row, the leftmost column
    torch.testing.assert_close(pool(maps), torch.tensor([[-1.0, 1.0]]))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_come_from_a_file_and_their_statistics_stay(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(3)
    state = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = PictureEncoder(PictureConfig(network="resnet18", weights=path, frozen=True), (64, 64, 3)).train()
    own = encoder.network.state_dict()
    torch.testing.assert_close(own["0.weight"], state["conv1.weight"])
    encoder(pictures(4, 64, 64, 3)).sum().backward()
    assert torch.equal(encoder.network.state_dict()["1.running_mean"], state["bn1.running_mean"])
    assert not any(p.requires_grad for p in encoder.network.parameters())
    assert all(p.grad is not None for p in encoder.project.parameters())
    grey = torch.full((1, 3, 64, 64), 124, dtype=torch.uint8)
    normalised = torch.addcmul(encoder.shift, grey.float(), encoder.scale)
    expected = (124 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(normalised[0, :, 0, 0], expected)


@pytest.mark.parametrize("network", ["googlenet", "inception_v3", "mobilenet_v2", "efficientnet_b0"])
@pytest.mark.parametrize("frozen", [False, True])
def test_torchvisions_classifiers_learn_as_encoders_and_keep_their_statistics(network: str, frozen: bool) -> None:
    encoder = PictureEncoder(PictureConfig(network=network, frozen=frozen, features=4), (96, 96, 3))
    before = {key: value.clone() for key, value in encoder.network.state_dict().items()}
    holder = torch.nn.ModuleList([encoder]).train()  # as a trainer says it, from above
    seen = pictures(3, 96, 96, 3)
    encoder(seen).square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    assert all(torch.equal(value, before[key]) for key, value in encoder.network.state_dict().items())
    holder.eval()
    torch.testing.assert_close(encoder(seen)[1:2], encoder(seen[1:2]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("network", ["resnet18", "mobilenet_v2"])
def test_statistics_stay_from_the_first_picture_on(network: str, tmp_path: Path) -> None:
    torch.save(torchvision.models.get_model(network, weights=None).state_dict(), tmp_path / "weights.pth")
    encoder = PictureEncoder(PictureConfig(network=network, weights=tmp_path / "weights.pth"), (64, 64, 3))
    before = {key: value.clone() for key, value in encoder.network.named_buffers()}
    encoder(pictures(4, 64, 64, 3))  # nobody has called train()
    assert before
    assert all(torch.equal(value, before[key]) for key, value in encoder.network.named_buffers())


def test_weights_that_are_not_there_or_of_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FlywheelError, match="There are no weights at"):
        PictureEncoder(PictureConfig(network="resnet18", weights=tmp_path / "none.pth"), (64, 64, 3))
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(FlywheelError, match="does not hold weights of resnet18"):
        PictureEncoder(PictureConfig(network="resnet18", weights=tmp_path / "other.pth"), (64, 64, 3))
    (tmp_path / "torn.pth").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(FlywheelError, match="does not hold weights of resnet18"):
        PictureEncoder(PictureConfig(network="resnet18", weights=tmp_path / "torn.pth"), (64, 64, 3))
    with pytest.raises(FlywheelError, match="nature is our own"):
        PictureConfig(weights=tmp_path / "other.pth")


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(FlywheelError, match="no network for pictures 'resnet8'; did you mean 'resnet18'"):
        PictureEncoder(PictureConfig(network="resnet8"), (64, 64, 3))
    with pytest.raises(FlywheelError, match="nature cannot see pictures of 20 x 20"):
        PictureEncoder(PictureConfig(), (20, 20, 3))
    with pytest.raises(FlywheelError, match="at least 1"):
        PictureConfig(features=0)


def test_a_crop_is_of_anywhere_while_learning_and_of_the_middle_when_acting() -> None:
    torch.manual_seed(0)
    encoder = PictureEncoder(PictureConfig(crop=36), (44, 60, 3))
    shown = pictures(5, 44, 60, 3)
    assert not torch.equal(encoder(shown), encoder(shown))
    encoder.eval()
    changed = shown.clone()
    changed[:, :, :4] = changed[:, :, -4:] = 0
    changed[:, :, :, :12] = changed[:, :, :, -12:] = 0
    assert torch.equal(encoder(shown), encoder(changed))
    changed[:, :, 4] = 0
    assert not torch.equal(encoder(shown), encoder(changed))
    with pytest.raises(FlywheelError, match="crop of 50 is larger than the pictures of 44 x 60"):
        PictureEncoder(PictureConfig(crop=50), (44, 60, 3))
