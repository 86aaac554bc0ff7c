"""Elucidated diffusion (EDM): noise levels, the preconditioned denoiser and its loss, and samplers."""
