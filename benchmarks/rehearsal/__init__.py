"""A rehearsal: published sizes with random weights, a local hub, and the commands that users give."""

MANIFEST = "manifest.json"  # SHA-256 of what the hub serves, by owner/name/path
UNOPENED = (  # of a base's repository: whoever asks for one of these downloads too much
    *("v1-5-pruned.safetensors", "v1-5-pruned-emaonly.ckpt", "unet/diffusion_pytorch_model.safetensors"),
    *("unet/diffusion_pytorch_model.fp16.bin", "unet/diffusion_pytorch_model.non_ema.safetensors"),
    *("text_encoder/model.safetensors", "vae/diffusion_pytorch_model.safetensors"),
    *("safety_checker/config.json", "safety_checker/model.fp16.safetensors"),
)
