"""Quantisers: how a codec's latents become codes, and codes become latents again."""
