"""All pretext tasks side by side: what their embeddings know of classes, and what their losses follow."""
