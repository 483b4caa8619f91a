"""What can go wrong in this package."""


class NotReadyError(Exception):
    """No answer can be given now; another try, or another replica, can.

    Attributes:
        retry_after_s: Whole seconds after which to ask again.
    """

    def __init__(self, reason: str, retry_after_s: int = 1) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s
