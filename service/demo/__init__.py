"""`shortlist demo`: the main job on the bundled pool, driven only through HTTP, as two annotators would."""
