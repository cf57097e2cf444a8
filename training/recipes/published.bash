# Read by other recipes: DiffRetouch as published (AAAI 2025, arXiv 2407.03757), as far as it is known.
# [paper]: the paper's text, [code]: the released code, which has no contrastive loss; the rest was published nowhere.
published_losses=(
  --latent_weight 1          # [paper] ||eps' - eps||^2
  --pixel_weight 0.04        # [paper] beta 0.01, on [-1,1]; pixels are [0,1] here, so four times that ([code]: beta 1)
  --contrastive_weight 1     # [paper] lambda 1
  --contrastive_tau 0.1      # [paper]
  --contrastive_anchor output # [paper] the scores of the output for c, other noise as the positive, -c as the negative
  --branch_fraction 1        # [paper] of every sample
  --pixel_l1_weight 0 --attribute_weight 0 --obedience_weight 0 # ours, not in the paper
  --labels relative          # [paper] c in [-1,1] by the experts' scores; how exactly: not published, ours
  --first_timestep_fraction 0 # [code] timesteps uniform in 0..999
  --unknown_share 0          # [code] c is the one context token as it is, and always known
  --attribute_tokens 1       # [code]
)
published_sampler=(
  --timestep_range 200 999 --default_steps 20 # [code] 20 ancestral steps over these timesteps
)
published_network=(
  --grid_head released       # [code] four layers, no identity added, on [-1,1]
  --thumbnail nearest        # [code] every n-th pixel, 64x64
)
published_optimizer=(
  --learning_rate 1e-6       # [paper] ([code] can scale it by GPUs and batch)
  --adam_weight_decay 1e-2   # [code] AdamW's default
  --train_batch_size 1 --gradient_accumulation_steps 16 # [code] for each GPU; how many GPUs: not published
  --lr_scheduler constant --lr_warmup_steps 0 # [code] none
  --max_grad_norm inf        # [code] gradients are not clipped
  --ema_decay 0              # [code] the weights themselves
  --gradient_checkpointing   # [code] changes the memory only
)
