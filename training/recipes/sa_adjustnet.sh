#!/usr/bin/env bash
# Trains the bundled small SA-AdjustNet and the variants of its table from a folder of photos, on simulated local effects:
# a few minutes each on one CPU core. The last lines make their table, on the photos that were left out.
#   training/recipes/sa_adjustnet.sh PHOTOS OUTPUT [EFFECT [PRESETS]]
set -euo pipefail
photos=$1 output=$2 effect=${3:-foreground_pop_out} presets=${4:-2}
here=$(dirname "$(readlink -f "$0")")
train() {
  accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_sa_adjustnet \
    --train_data_dir "$photos" --exclude "$here/small_validation.txt" --effect "$effect" --output_dir "$output/$1" \
    --size small --learning_rate 1.5e-3 --backbone_lr_scale 1 --lr_scheduler cosine --lr_warmup_steps 100 \
    --max_train_steps 1200 --seed 0 "${@:2}"
}
train mse --loss mse
train huber
train multi_task --scene_weight 0.01
train hard_presets --scene_weight 0.01 --presets "$presets"  # the paper's +S
train presets --scene_weight 0.01 --presets "$presets" --preset_mixture 1  # the bundled one
# A global retouch, to compare with
python -m diffretouch.training.simulate_local_effects "$photos" "$output/train_pairs" --effect "$effect" \
  --exclude "$here/small_validation.txt"
accelerate launch --cpu --num_processes 1 -m diffretouch.training.train_csrnet --dataset pairs \
  --train_data_dir "$output/train_pairs" --output_dir "$output/csrnet" --resolution 128 --pixel_stride 2 \
  --learning_rate 2e-3 --max_train_steps 1200 --seed 0
python -m diffretouch.training.simulate_local_effects "$photos" "$output/pairs" --effect "$effect" \
  --only "$here/small_validation.txt"
diffretouch evaluate "$output/pairs/input" "$output/pairs/target" --card --rendering "simulated $effect, 256 px" \
  --peer CSRNet="$output/csrnet" --peer MSE="$output/mse" --peer Huber="$output/huber" --peer MT="$output/multi_task" \
  --peer HardS="$output/hard_presets" --peer S="$output/presets"
