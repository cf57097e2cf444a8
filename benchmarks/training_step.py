"""What a training step costs, in CPU time of one thread: with and without the contrastive loss, and its data.

python benchmarks/training_step.py PHOTOS [RESOLUTION]

CPU time is what a busy machine leaves comparable; variants take turns within each round. "three passes" is the
batch for c, for c with other noise and for -c one after the other, instead of one batched forward.
"""

import statistics
import sys
import tempfile
import time

import torch
from diffusers import AutoencoderKL

from diffretouch.losses import contrastive_loss
from diffretouch.training.pairs import training_pairs
from diffretouch.training.retouch_losses import training_losses
from diffretouch.training.retouch_model import build_models
from diffretouch.training.train_autoencoder import SMALL_AUTOENCODER
from diffretouch.training.train_diffretouch import parse_args

torch.set_num_threads(1)
photos, resolution = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "128"
folder = tempfile.mkdtemp()
AutoencoderKL(**SMALL_AUTOENCODER).save_pretrained(folder)
common = ["--train_data_dir", photos, "--vae", folder, "--output_dir", "x", "--resolution", resolution]
common += ["--pixel_stride", "2", "--obedience_weight", "0"]
VARIANTS = {
    "without L_cl": ["--contrastive_weight", "0"],
    "L_cl, half of the batch, anchor on the target (default)": [],
    "L_cl, whole batch, anchor on the target": ["--branch_fraction", "1"],
    "L_cl, half of the batch, anchor on the output": ["--contrastive_anchor", "output"],
    "L_cl, whole batch, anchor on the output (the paper)": [
        "--branch_fraction",
        "1",
        "--contrastive_anchor",
        "output",
    ],
}
args = {name: parse_args(common + more) for name, more in VARIANTS.items()}
model, vae, scheduler = build_models(args["without L_cl"])

start = time.process_time()
pairs = training_pairs(args["without L_cl"], int(resolution))
first = torch.utils.data.default_collate([pairs[k] for k in range(16)])
opened = time.process_time() - start
start = time.process_time()
batch = torch.utils.data.default_collate([pairs[len(pairs.paths) * 10 + k] for k in range(16)])
kept = time.process_time() - start
batch["c"] = torch.rand(16, 4) * 2 - 1


def step(variant):
    losses = training_losses(model, vae, scheduler, batch, args[variant])
    sum(losses.values()).backward()
    model.zero_grad()


def three_passes():
    plain, outputs = args["without L_cl"], [batch["target"][..., ::2, ::2]]
    losses = training_losses(model, vae, scheduler, batch, plain)
    for sign, seed in ((1, 1), (-1, 0)):
        noise = torch.randn(16, 4, *[int(resolution) // 4] * 2, generator=torch.Generator().manual_seed(seed))
        outputs.append(model(noise, batch["input"], torch.full((16,), 999), sign * batch["c"], 2)[1])
    (sum(losses.values()) + contrastive_loss(*outputs, batch["c"])).backward()
    model.zero_grad()


rounds = {name: [] for name in [*VARIANTS, "three passes, whole batch, one after the other"]}
for n in range(4):
    for name in rounds:
        start = time.process_time()
        three_passes() if name.startswith("three") else step(name)
        if n:  # the first round warms up
            rounds[name].append(time.process_time() - start)
base = statistics.median(rounds["without L_cl"])
print(f"batch 16 at {resolution} px: data {kept:.2f} s CPU a batch ({opened:.2f} s when every file is opened)")
for name, times in rounds.items():
    print(f"{statistics.median(times):6.2f} s  {statistics.median(times) / base:5.2f}x  {name}")
