"""What ends a job for good, wherever it is found out."""


class JobFailed(Exception):
    """A person must act, so the job is not tried again. The sentence is what they read in `job.error`."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)


class PlugInUnusable(JobFailed):
    """A plug-in does not take the parameters that were chosen."""


class UnknownPlugIn(PlugInUnusable):
    """Nothing of that name is here; another worker may have it."""

    def __init__(self, sentence: str, setting: str, name: str) -> None:
        super().__init__(sentence)
        self.setting, self.name = setting, name
