"""The optional diffusion denoiser: its network, its crops, its workers."""
