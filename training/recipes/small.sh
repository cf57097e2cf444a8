#!/usr/bin/env bash
# Trains the bundled small model from a folder of finished photos: about 15 minutes for the autoencoder and 50 for the
# UNet on one CPU core.
#   training/recipes/small.sh PHOTOS OUTPUT
set -euo pipefail
photos=$1 output=$2
here=$(dirname "$(readlink -f "$0")")
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_autoencoder \
  --train_data_dir "$photos" --output_dir "$output/autoencoder" --max_train_steps 1500 --mixed_precision bf16
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_diffretouch \
  --train_data_dir "$photos" --exclude "$here/small_validation.txt" --vae "$output/autoencoder" \
  --output_dir "$output/small" --labels automatic --latent_weight 0.2 --obedience_weight 1 \
  --max_train_steps 2400 --lr_warmup_steps 50 --pixel_stride 2 --mixed_precision bf16 --seed 0 \
  --checkpointing_steps 200 --checkpoints_total_limit 9
# c = 0 is best half way, obedience at the end: the mean has most of both
python -m diffretouch.training.average_checkpoints "$output/small" --from_step 800 --save_dir "$output/averaged"
# In half precision: 11 MB in the package. It is loaded and run in float32.
python - "$output" <<'PACK'
import sys
import torch
from diffretouch import DiffRetouchPipeline
DiffRetouchPipeline.from_pretrained(sys.argv[1] + "/averaged").to(torch.float16).save_pretrained(sys.argv[1] + "/packed")
PACK
