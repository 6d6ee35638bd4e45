"""`shortlist demo`: the main job on the bundled pool, driven only through HTTP, as two annotators would."""


class DemoFailed(Exception):
    """The demo cannot go on; the message is for people."""
