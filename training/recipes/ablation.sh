#!/usr/bin/env bash
# Trains the bundled small model and seven that lack a part of it, 300 steps each, the two that a reader will quote with
# three seeds, and measures them side by side with paired intervals: over an hour on one quiet CPU core. SMALL is what
# small.sh made: its autoencoder and teacher are used. STEPS=2 SEEDS=0 tries the script itself. "recipe" is small.bash, all
# of it from the first step, at the rate of small.sh's first part (its second starts from the first, which no row without a
# grid or with other tokens could). "published" are the losses, timesteps and sampler of the paper as published.bash has
# them (network and optimizer are those of the other rows, as a network of this size would learn nothing at 1e-6); every
# model is sampled as it was made for: 20 steps there, else one.
#   [PRECISION=bf16] training/recipes/ablation.sh PHOTOS SMALL OUTPUT INPUTS TARGETS
set -euo pipefail
photos=$1 small=$2 output=$3 inputs=$4 targets=$5
steps=${STEPS:-300} seeds=${SEEDS:-0 1 2} precision=${PRECISION:-no} # bf16 is for processors that multiply it
here=$(dirname "$(readlink -f "$0")")
. "$here/small.bash"
. "$here/published.bash"
models=()
train() { # NAME FLAGS…
  accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_diffretouch \
    --train_data_dir "$photos" --exclude "$here/small_validation.txt" --vae "$small/autoencoder" --output_dir "$output/$1" \
    --max_train_steps "$steps" --mixed_precision "$precision" --seed 0 "${@:2}"
  models+=(--model "$1=$output/$1")
}
without_teacher=("${small_settings[@]}" "${small_taught[@]}")
ours=("${without_teacher[@]}" --teacher "$small/teacher")
published=(--lr_warmup_steps 50 --pixel_stride 2 "${published_losses[@]}" "${published_sampler[@]}")
for seed in $seeds; do
  train "recipe_$seed" "${ours[@]}" --seed "$seed"
  train "published_$seed" "${published[@]}" --seed "$seed"
done
train no_teacher "${without_teacher[@]}"
train no_grid "${ours[@]}" --no_grid
train four_tokens "${ours[@]}" --attribute_tokens 4
train no_contrastive "${ours[@]}" --contrastive_weight 0
train no_daylight "${ours[@]}" --daylight_weight 0
train published_no_contrastive "${published[@]}" --contrastive_weight 0
diffretouch evaluate "$inputs" "$targets" "${models[@]}" --against "automatic recipe_${seeds%% *}" \
  --controllability "$photos" --controllability-split "$here/small_validation.txt" --limit 16 --diversity 4 \
  --page "$output/ablation.html" -o "$output/ablation.json"
