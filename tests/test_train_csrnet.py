"""The training script of CSRNet and CSRNet-L. Its checkpoints are DiffRetouch's, whose test also kills."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffretouch import CSRNet, CSRNetL, CSRNetPipeline
from diffretouch.data.unpaired import UnpairedPhotos
from diffretouch.metrics import psnr
from diffretouch.training import train_csrnet
from diffretouch.training.checkpoints import checkpoints

from .tiny import run_here
from .toy_training import assert_same, log, state

PHOTOS = Path(__file__).parent / "photos"


def arguments(output_dir, *more):
    return [
        *("--train_data_dir", str(PHOTOS), "--output_dir", str(output_dir), "--resolution", "24"),
        *("--train_batch_size", "2", "--max_train_steps", "6", "--checkpointing_steps", "2"),
        *("--checkpoints_total_limit", "3", "--dataloader_num_workers", "0", "--learning_rate", "1e-3", *more),
    ]


def train(output_dir, *more):
    run_here(train_csrnet.main, arguments(output_dir, *more))


@pytest.fixture(scope="module")
def expert(tmp_path_factory):
    """A trained CSRNet."""
    folder = tmp_path_factory.mktemp("expert")
    train(folder / "run", "--pixel_stride", "2")
    return folder / "run"


def test_trains_and_saves_a_pipeline(expert):
    rows = log(expert)
    assert [row["step"] for row in rows] == list(range(1, 7)) and {"step", "lr", "l1"} <= set(rows[0])
    # halved five times over six steps; the rate that is logged is the step's own
    assert [row["lr"] for row in rows] == [1e-3 / 2**n for n in range(6)]
    assert [p.name for p in checkpoints(expert)] == [f"checkpoint-{n}" for n in (2, 4, 6)]
    pipe = CSRNetPipeline.from_pretrained(expert)
    assert isinstance(pipe.network, CSRNet) and pipe.network.config.condition_size == 24
    assert pipe(torch.rand(3, 40, 30), output_type="pt").images.shape == (1, 3, 40, 30)
    raw = load_file(expert / "checkpoint-6" / "model.safetensors")["convs.0.weight"]
    assert not torch.equal(pipe.network.convs[0].weight, raw)  # what is saved is the EMA


@pytest.mark.parametrize("network", [("csrnet",), ("csrnet-l", "--train_batch_size", "1")])
def test_resume_is_bit_exact(tmp_path, network):
    more = ("--network", *network)
    train(tmp_path / "straight", *more)
    shutil.copytree(tmp_path / "straight", tmp_path / "resumed")
    shutil.rmtree(tmp_path / "resumed" / "checkpoint-6")
    train(tmp_path / "resumed", *more, "--resume_from_checkpoint", "latest")
    assert_same(state(tmp_path / "straight" / "checkpoint-6"), state(tmp_path / "resumed" / "checkpoint-6"))
    assert log(tmp_path / "straight") == log(tmp_path / "resumed")  # no line twice


def test_condition_only_leaves_the_base_as_it_is(expert, tmp_path):
    train(tmp_path / "other", "--init", str(expert), "--train_condition_only", "--seed", "5")
    before, after = (CSRNetPipeline.from_pretrained(p).network.state_dict() for p in (expert, tmp_path / "other"))
    for name, weight in after.items():
        assert torch.equal(weight, before[name]) == name.startswith("convs."), name


def test_condition_only_turns_one_expert_into_another():
    """With the base of a warm expert, the condition network alone learns a cold one's style."""
    photos = torch.stack([UnpairedPhotos(PHOTOS, 24, vary=False)[k]["target"] for k in range(4)])
    warm, cold = (photos**1.2 * torch.tensor(gains)[:, None, None] for gains in ((1.1, 1.0, 0.8), (0.8, 0.95, 1.1)))
    torch.manual_seed(0)
    network = CSRNet(condition_size=24)

    def fit(parameters, target, steps):
        optimizer = torch.optim.Adam(parameters, 5e-3)
        for _ in range(steps):
            (network(photos) - target).abs().mean().backward()
            optimizer.step()
            network.zero_grad()
        return psnr(network(photos), target).mean().item()

    assert fit(network.parameters(), warm, 150) > 30
    assert psnr(network(photos), cold).mean() < 24
    condition = [p for name, p in network.named_parameters() if not name.startswith("convs.")]
    assert sum(p.numel() for p in condition) == 31_878
    assert fit(condition, cold, 150) > 30


def test_csrnet_l_starts_as_the_csrnet_it_comes_from(expert, tmp_path):
    more = ("--network", "csrnet-l", "--init", str(expert), "--learning_rate", "0", "--max_train_steps", "1")
    train(tmp_path, *more)
    local, plain = (CSRNetPipeline.from_pretrained(p).network for p in (tmp_path, expert))
    image = torch.rand(1, 3, 30, 20)
    assert isinstance(local, CSRNetL) and (local(image) - plain(image)).abs().max() < 1e-5


@pytest.mark.parametrize(
    "more, words",
    [
        (("--train_condition_only",), "needs --init"),
        (("--network", "csrnet-l", "--pixel_stride", "2"), "--pixel_stride must be 1"),
        (("--input_space", "prophoto"), "needs --keep_aspect"),
        (("--keep_aspect",), "needs --train_batch_size 1"),
        (("--untagged_inputs", "srgb"), "is for --input_space prophoto"),
    ],
)
def test_wrong_arguments(tmp_path, capsys, more, words):
    with pytest.raises(SystemExit):
        train(tmp_path / "out", *more)
    assert words in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_wrong_start(tmp_path):
    CSRNetPipeline(CSRNetL()).save_pretrained(tmp_path / "local")
    CSRNetPipeline(CSRNet(input_space="prophoto")).save_pretrained(tmp_path / "wide")
    with pytest.raises(SystemExit, match="holds a CSRNetL"):
        train(tmp_path / "out", "--init", str(tmp_path / "local"))
    with pytest.raises(SystemExit, match="takes prophoto"):
        train(tmp_path / "out", "--init", str(tmp_path / "wide"))
    with pytest.raises(SystemExit, match="not empty"):
        train(tmp_path / "local")
