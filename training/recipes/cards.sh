#!/usr/bin/env bash
# Measures the bundled models once more: every figure in diffretouch/weights/*/README.md that does not need another
# training. PHOTOS is the folder that they were trained from (the 59 photos left out are measured), INPUTS and TARGETS
# the 13 pairs of MIT-Adobe FiveK. Markdown, JSON, LaTeX and a page each come to OUTPUT, in about 13 minutes of one quiet
# CPU core (seven for the first table, most of them for its 20 steps); a stopped run goes on.
#   training/recipes/cards.sh PHOTOS INPUTS TARGETS OUTPUT
set -euo pipefail
photos=$1 inputs=$2 targets=$3 output=$4
here=$(dirname "$(readlink -f "$0")")
mkdir -p "$output"
measure() { # CARD ARGUMENTS…
  echo "== $1" >&2
  diffretouch evaluate "${@:2}" --cache "$output/cache" --card --overwrite \
    --page "$output/$1.html" -o "$output/$1.json" | tee "$output/$1.md"
  python - "$output/$1.json" >"$output/$1.tex" <<'LATEX'
import json, sys
from diffretouch.evaluation import report_latex
print(report_latex(json.load(open(sys.argv[1]))))
LATEX
}
# 1. small, csrnet_small and csrnet_l_small: the pairs, by number of steps
measure small "$inputs" "$targets" --rendering "camera originals and Expert C, about 512 px" --steps 1,2,4,8,20 \
  --peer csrnet --peer csrnet-l --against "automatic 1 step" --cost
# The same in eight steps, by several seeds
measure small_samples "$inputs" "$targets" --rendering "camera originals and Expert C, about 512 px" --steps 8 \
  --best-of 8 --diversity 8
# The same with inputs 0.4 stops darker: about as dark as originals of MIT-Adobe FiveK usually are
python - "$inputs" "$output/darker" <<'DARKER'
import sys
from pathlib import Path
from diffretouch.colour import linear_to_srgb, srgb_to_linear
from diffretouch.photo import load_photo, save_photo
Path(sys.argv[2]).mkdir(exist_ok=True)
for path in sorted(Path(sys.argv[1]).iterdir()):
    pixels = linear_to_srgb(srgb_to_linear(load_photo(path).pixels) * 2**-0.4)
    save_photo(pixels, Path(sys.argv[2]) / f"{path.stem}.png", overwrite=True)
DARKER
measure small_darker "$output/darker" "$targets" --rendering "inputs 0.4 stops darker" --steps 1 --peer csrnet \
  --peer csrnet-l
# 2. small: what its sliders do, in one step
measure small_sliders --controllability "$photos" --controllability-split "$here/small_validation.txt" --steps 1
# 3. sa_adjustnet_small: the effect that it imitates, with soft edges and with hard ones
rm -rf "$output/pop_out" "$output/hard_edges"
python -m diffretouch.training.simulate_local_effects "$photos" "$output/pop_out" --effect foreground_pop_out \
  --only "$here/small_validation.txt"
python - "$output/hard_edges" <<'HARD'
import sys
from diffretouch import SAAdjustNetPipeline
pipe = SAAdjustNetPipeline.from_pretrained("small")
pipe.network.register_to_config(soft_edges=False)
pipe.save_pretrained(sys.argv[1])
HARD
measure sa_adjustnet_small "$output/pop_out/input" "$output/pop_out/target" --steps 1 \
  --rendering "simulated foreground pop-out, 256 px" --peer sa-adjustnet --peer hard_edges="$output/hard_edges"
