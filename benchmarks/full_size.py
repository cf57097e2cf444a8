"""What a training step of the full size takes: memory and time by phase, for the ways to make it smaller.

python benchmarks/full_size.py [--resolution 512] [--keep FOLDER] [--only NAME ...] [--toy]

The network of Stable Diffusion 2.1, 840 million weights, with the published losses, sampler and gradient checkpointing
(training/recipes/published.bash), one photo a step. Weights are random: memory and time do not ask what they are. Each
way runs in a process of its own on the CPU, so 18 GiB of memory and 4 GB of disk are needed; its numbers are the
processor's, on which 8-bit moments do not run (bitsandbytes) and an average "on the CPU" lies where all lies.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "published.bash"
GIB = 2**30

WAYS = {  # name -> flags of train_diffretouch; `--bf16_weights` is this script's own
    "LoRA, rank 16": ["--lora_rank", "16"],
    "bf16 weights, one step of SGD": ["--bf16_weights"],
    "plain, without L_cl": ["--contrastive_weight", "0"],
    "plain": [],
    "plain, with an average": ["--ema_decay", "0.999"],
}


def stable_diffusion(folder, toy):
    """A random checkpoint in the layout and of the size of Stable Diffusion 2.1-base."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

    if toy:
        from diffretouch.training.recipes import toy as recipes_toy

        return recipes_toy.stable_diffusion(folder)
    torch.manual_seed(0)
    four = ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",), ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3
    shape = {"sample_size": 64, "cross_attention_dim": 1024, "use_linear_projection": True}
    UNet2DConditionModel(
        **shape,
        down_block_types=four[0],
        up_block_types=four[1],
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=(5, 10, 20, 20),
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
    ).save_pretrained(folder / "scheduler")


def published():
    """The flags of published.bash, in its order."""
    lines = (line.split("#")[0].strip() for line in RECIPE.read_text().splitlines() if line.startswith("  --"))
    return [word for line in lines for word in line.split()]


def measure(base, resolution, flags):
    """One step in this process; a line of json for each phase: GiB held at its end, GiB at most so far, seconds."""
    import torch

    from diffretouch.training.launch import build_optimizer
    from diffretouch.training.moving_average import MovingAverage
    from diffretouch.training.retouch_losses import training_losses
    from diffretouch.training.retouch_model import build_models
    from diffretouch.training.train_diffretouch import parse_args

    process, before = psutil.Process(), time.perf_counter()

    def phase(name):
        nonlocal before
        now, held = time.perf_counter(), process.memory_info().rss / GIB
        most = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024 / GIB
        print(json.dumps({"phase": name, "held": held, "most": most, "seconds": now - before}), flush=True)
        before = now

    phase("start")
    bf16_weights = "--bf16_weights" in flags
    flags = [flag for flag in flags if flag != "--bf16_weights"]
    place = ["--pretrained_model_name_or_path", str(base), "--train_data_dir", "-", "--output_dir", "-"]
    args = parse_args([*published(), *place, "--resolution", str(resolution), *flags])
    model, vae, scheduler = build_models(args)
    if bf16_weights:
        model = model.to(torch.bfloat16)
    trained = [p for p in model.parameters() if p.requires_grad]
    phase("build")
    optimizer = build_optimizer(args, trained) if not bf16_weights else torch.optim.SGD(trained, 1e-6)
    ema = MovingAverage(trained, args.ema_decay)
    phase("optimizer and average")
    photo = torch.rand(1, 3, resolution, resolution)
    batch = {"input": photo, "target": photo**0.8, "c": torch.rand(1, 4) * 2 - 1}
    batch |= {"k": torch.zeros(1, dtype=torch.int64), "name": ["random"]}
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16_weights):
        losses = training_losses(model, vae, scheduler, batch, args)
    phase("forward")
    sum(losses.values()).backward()
    phase("backward")
    optimizer.step()
    phase("step")
    ema.step()
    phase("average")
    sizes = {"weights": model.parameters(), "trained": trained}
    print(json.dumps({name: sum(p.numel() for p in part) for name, part in sizes.items()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--keep", type=Path, help="where the checkpoint is kept for another run")
    parser.add_argument("--only", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--toy", action="store_true", help="a tiny network: to see that the script runs")
    parser.add_argument("--measure", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        return measure(Path(args.measure[0]), int(args.measure[1]), args.measure[2:])
    with tempfile.TemporaryDirectory() as folder:
        base = args.keep or Path(folder)
        if not (base / "scheduler").is_dir():
            stable_diffusion(base, args.toy)
        memory, load = psutil.virtual_memory().total / GIB, os.getloadavg()[0]
        print(f"{args.resolution} px, one photo; {memory:.0f} GiB, load {load:.1f}; GiB at most by the end of:")
        columns = ("", "weights, trained", "build", "forward", "backward", "step", "seconds a step")
        print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
        for name in args.only:
            command = [sys.executable, __file__, "--measure", str(base), str(args.resolution), *WAYS[name]]
            done = subprocess.run(command, capture_output=True, text=True)
            rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
            most = {row["phase"]: f"{row['most']:.1f}" for row in rows if "phase" in row}
            if done.returncode:
                reached = rows[-1]["phase"] if rows else "nothing"
                why = (
                    "killed: out of memory" if done.returncode < 0 else (done.stderr.strip().splitlines() or ["?"])[-1]
                )
                print(
                    f"| {name} | | stopped after {reached} ({most.get(reached, '?')} GiB): {why} | | | | |", flush=True
                )
                continue
            of, *_ = (row for row in rows if "weights" in row)
            seconds = sum(
                row["seconds"] for row in rows if row.get("phase") in ("forward", "backward", "step", "average")
            )
            cells = (
                f"{of['weights'] / 1e6:.0f} M, {of['trained'] / 1e6:.0f} M | {most['build']} | {most['forward']} | "
            )
            print(f"| {name} | {cells}{most['backward']} | {most['average']} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
