#!/usr/bin/env bash
# Trains CSRNet as published (ECCV 2020, arXiv 2009.10390) on its own rendering of MIT-Adobe FiveK: DATA holds
# `raw_input_train` (16-bit ProPhoto RGB, long side 500 px) and `expert_C_train` (sRGB), 4,500 photos each. Colours are
# those that the files' profiles say; where they lack one: `--untagged_inputs prophoto`. About 5 hours of a 2080 Ti.
#   [ACCELERATE=...] training/recipes/csrnet_fivek.sh DATA OUTPUT [FLAGS...]
# FLAGS come last and win. At toy size, on a CPU: see toy.py.
set -euo pipefail
data=$1 output=$2
published=( # all of it by the released options file and data set, the input's colours by the weights' behaviour
  --dataset pairs --input_folder raw_input_train --expert expert_C_train
  --keep_aspect --resolution 500 --input_space prophoto # whole photos in their own shape, 16 bits
  --train_batch_size 1 --max_train_steps 600000
  --learning_rate 1e-4 --halvings 5 # Adam, beta 0.9 and 0.99; halved at 100k, 200k, ... 500k
  --ema_decay 0                     # the weights themselves
  --checkpointing_steps 5000 --seed 10
)
ours=(--dataloader_num_workers 4) # changes the speed only
# shellcheck disable=SC2086
accelerate launch ${ACCELERATE:-} -m diffretouch.training.train_csrnet \
  --train_data_dir "$data" --output_dir "$output" "${published[@]}" "${ours[@]}" "${@:3}"
# diffretouch evaluate "$data/raw_input_test" "$data/expert_C_test" --peer CSRNet="$output" --protocol fivek-csrnet
