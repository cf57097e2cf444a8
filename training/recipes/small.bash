# Read by other recipes: how the bundled small model is trained, for small.sh and for the rows of ablation.sh.
small_settings=( # of both its parts
  --labels automatic --view_spread 0.1 --latent_weight 0.5 --obedience_weight 1
  --first_timestep_fraction 0.4 --unknown_share 0.35 --sampling_steps 8 --noise_offset 12
  --lr_warmup_steps 50 --pixel_stride 2
)
small_taught=( # of the second part alone, which a CSRNet teaches (--teacher) what c = 0 means
  --clipping_limit 0.003 --shoulder 0.7 --daylight_weight 0.08
  --obedience_weight 3 --branch_fraction 1
)
