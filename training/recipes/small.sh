#!/usr/bin/env bash
# Trains the bundled small model from a folder of finished photos: on one CPU core about 5 minutes for the autoencoder,
# 2 for the teacher and 26 for the UNet.
#   training/recipes/small.sh PHOTOS OUTPUT
set -euo pipefail
photos=$1 output=$2
here=$(dirname "$(readlink -f "$0")")
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_autoencoder \
  --train_data_dir "$photos" --output_dir "$output/autoencoder" --max_train_steps 1500 --mixed_precision bf16
train() { # NAME FLAGS…
  accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_diffretouch \
    --train_data_dir "$photos" --exclude "$here/small_validation.txt" --vae "$output/autoencoder" \
    --output_dir "$output/$1" --labels automatic --view_spread 0.1 --latent_weight 0.2 --obedience_weight 1 \
    --lr_warmup_steps 50 --pixel_stride 2 --mixed_precision bf16 --seed 0 \
    --checkpointing_steps 100 --checkpoints_total_limit 20 "${@:2}"
}
train free --max_train_steps 1900
# A CSRNet teaches what c = 0 means: the mean of both trainings has most of its sureness, and still sliders that reach far
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_csrnet \
  --train_data_dir "$photos" --exclude "$here/small_validation.txt" --output_dir "$output/teacher" \
  --pixel_stride 2 --learning_rate 2e-3 --halvings 3 --ema_decay 0.99 --max_train_steps 700
train taught --init "$output/free" --teacher "$output/teacher" --learning_rate 4e-4 --max_train_steps 500 \
  --clipping_limit 0.0015
python -m diffretouch.training.average_checkpoints "$output/taught" "$output/free" --from_step 300 1000 \
  --save_dir "$output/averaged"
# In half precision: 11 MB in the package. It is loaded and run in float32.
python - "$output" <<'PACK'
import json
import sys
from pathlib import Path
import torch
from diffretouch import DiffRetouchPipeline
output = Path(sys.argv[1])
DiffRetouchPipeline.from_pretrained(output / "averaged").to(torch.float16).save_pretrained(output / "packed")
for path in (output / "packed").rglob("*.json"):  # where it was made is nobody's business
    config = {name: value for name, value in json.loads(path.read_text()).items() if name != "_name_or_path"}
    path.write_text(json.dumps(config, indent=2) + "\n")
PACK
