"""What worker processes have in common."""


def use_one_thread(_worker: int = 0) -> None:
    """Keep OpenCV to one thread in this process: there is a worker for each core that is to be used.

    The workers of a torch `DataLoader` keep torch to one thread by themselves; others do not load it.
    """
    import cv2

    cv2.setNumThreads(0)
