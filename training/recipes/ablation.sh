#!/usr/bin/env bash
# Trains the bundled small model and six that lack a part of it, 300 steps each, and measures them side by side: about
# 35 minutes on one CPU core. SMALL is what small.sh made: its autoencoder and teacher are used.
#   training/recipes/ablation.sh PHOTOS SMALL OUTPUT INPUTS TARGETS
set -euo pipefail
photos=$1 small=$2 output=$3 inputs=$4 targets=$5
here=$(dirname "$(readlink -f "$0")")
train() { # NAME FLAGS…: the recipe's settings, and what is changed in them
  accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_diffretouch \
    --train_data_dir "$photos" --exclude "$here/small_validation.txt" --vae "$small/autoencoder" --output_dir "$output/$1" \
    --clipping_limit 0.0015 --latent_weight 0.2 --max_train_steps 300 --lr_warmup_steps 50 --pixel_stride 2 \
    --mixed_precision bf16 --seed 0 "${@:2}"
}
without_teacher=(--labels automatic --obedience_weight 1 --view_spread 0.1)
ours=("${without_teacher[@]}" --teacher "$small/teacher")
paper=(--labels relative --obedience_weight 0 --attribute_weight 0) # L_rec and, with a weight, L_cl: nothing else
train recipe "${ours[@]}"
train no_teacher "${without_teacher[@]}"
train no_grid "${ours[@]}" --no_grid
train four_tokens "${ours[@]}" --attribute_tokens 4
train no_contrastive "${ours[@]}" --contrastive_weight 0
train paper "${paper[@]}" --contrastive_weight 0.1
train paper_no_contrastive "${paper[@]}" --contrastive_weight 0
models=()
for name in recipe no_teacher no_grid four_tokens no_contrastive paper paper_no_contrastive; do models+=(--model "$name=$output/$name"); done
diffretouch evaluate "$inputs" "$targets" "${models[@]}" --steps 1 --controllability "$photos" \
  --controllability-split "$here/small_validation.txt" --limit 16 --page "$output/ablation.html" -o "$output/ablation.json"
