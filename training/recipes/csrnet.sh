#!/usr/bin/env bash
# Trains the bundled CSRNet and CSRNet-L from a folder of finished photos: five minutes on one CPU core. The first, in
# float32, is also the teacher of small.sh; PRECISION is the second's.
#   [PRECISION=bf16] training/recipes/csrnet.sh PHOTOS OUTPUT
set -euo pipefail
photos=$1 output=$2 precision=${PRECISION:-no}  # bf16 is for processors that multiply it
here=$(dirname "$(readlink -f "$0")")
train=(accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_csrnet
  --train_data_dir "$photos" --exclude "$here/small_validation.txt")
"${train[@]}" --output_dir "$output/csrnet" --pixel_stride 2 --learning_rate 2e-3 --halvings 3 --ema_decay 0.99 \
  --max_train_steps 600
"${train[@]}" --output_dir "$output/csrnet_l" --network csrnet-l --init "$output/csrnet" --resolution 64 \
  --train_batch_size 8 --learning_rate 5e-4 --max_train_steps 600 --seed 1 --mixed_precision "$precision"
