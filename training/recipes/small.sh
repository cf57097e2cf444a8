#!/usr/bin/env bash
# Trains the bundled small model from a folder of finished photos, none of the validation photos in any part: on one
# CPU core 7 minutes for the autoencoder, 4 for the teacher and 52 for the UNet in bf16, longer in float32.
#   [PRECISION=bf16] training/recipes/small.sh PHOTOS OUTPUT
set -euo pipefail
photos=$1 output=$2 precision=${PRECISION:-no}  # bf16 is for processors that multiply it
here=$(dirname "$(readlink -f "$0")")
kept="$here/small_validation.txt"
. "$here/small.bash"
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_autoencoder \
  --train_data_dir "$photos" --exclude "$kept" --output_dir "$output/autoencoder" --max_train_steps 1200 \
  --lr_warmup_steps 60 --dataloader_num_workers 1 --mixed_precision "$precision"
train() { # NAME FLAGS…
  accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_diffretouch \
    --train_data_dir "$photos" --exclude "$kept" --vae "$output/autoencoder" \
    --output_dir "$output/$1" "${small_settings[@]}" --mixed_precision "$precision" --seed 0 \
    --checkpointing_steps 100 --checkpoints_total_limit 20 "${@:2}"
}
train free --max_train_steps 2400
# A CSRNet teaches what c = 0 means
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_csrnet \
  --train_data_dir "$photos" --exclude "$kept" --output_dir "$output/teacher" \
  --pixel_stride 2 --learning_rate 2e-3 --halvings 3 --ema_decay 0.99 --max_train_steps 600
train taught --init "$output/free" --teacher "$output/teacher" --learning_rate 4e-4 --max_train_steps 500 \
  "${small_taught[@]}"
# In half precision: 11 MB in the package. It is loaded and run in float32.
python - "$output" <<'PACK'
import json
import sys
from pathlib import Path
import torch
from diffretouch import DiffRetouchPipeline
output = Path(sys.argv[1])
DiffRetouchPipeline.from_pretrained(output / "taught").to(torch.float16).save_pretrained(output / "packed")
for path in (output / "packed").rglob("*.json"):  # where it was made is nobody's business
    config = {name: value for name, value in json.loads(path.read_text()).items() if name != "_name_or_path"}
    path.write_text(json.dumps(config, indent=2) + "\n")
PACK
