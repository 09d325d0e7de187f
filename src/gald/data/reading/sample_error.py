"""The error about an unusable sample."""


class SampleError(ValueError):
    """Error about an unusable sample, as one sentence, also if a worker process raised it.

    A DataLoader raises a worker's error again, with the text of the whole traceback as message;
    this class keeps only the sentence at the end of that text.

    Args:
        message: the sentence: the file, what is wrong, the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit("SampleError: ", 1)[-1].strip())
