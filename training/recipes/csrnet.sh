#!/usr/bin/env bash
# Trains the bundled CSRNet and CSRNet-L from a folder of finished photos: about half an hour on one CPU core.
#   training/recipes/csrnet.sh PHOTOS OUTPUT
set -euo pipefail
photos=$1 output=$2
here=$(dirname "$(readlink -f "$0")")
train=(accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_csrnet
  --train_data_dir "$photos" --exclude "$here/small_validation.txt")
"${train[@]}" --output_dir "$output/csrnet" --resolution 128 --pixel_stride 2 \
  --train_batch_size 16 --learning_rate 2e-3 --max_train_steps 3000
"${train[@]}" --output_dir "$output/csrnet_l" --network csrnet-l --init "$output/csrnet" --resolution 64 \
  --train_batch_size 8 --learning_rate 5e-4 --max_train_steps 1200 --seed 1
