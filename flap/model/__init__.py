"""The paper as code: audio encoder, masking, text encoder, contrastive loss, and FLAP of them.

Shape letters, used in names throughout (`tokens_BND`):
    B clips, T mel frames, F mel bins, N patch tokens, K tokens kept by masking,
    L text tokens, D encoder width, E width of the shared embedding.
"""
