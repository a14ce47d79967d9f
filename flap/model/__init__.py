"""The model of the paper: audio encoder, masking, decoder, text encoder, losses and FLAP itself.

Shape letters at the end of tensor names (`tokens_BND`):
    B clips, V masked views of a clip, C channels, T mel frames, F mel bins, N patch tokens,
    K tokens that a mask keeps, P values of a patch, L text tokens, D encoder width,
    E width of the shared embedding, G pairs of the global batch.
"""
