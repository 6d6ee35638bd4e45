"""Contents: bytes of items, one file a modality, without torch."""
