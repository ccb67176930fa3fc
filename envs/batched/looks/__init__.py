"""How things look: colours, textures, randomisation, augmentation, contact sheets."""
