"""What a session shows while its model is slower than a second a frame.

First the last picture again and again, with a sign in it, then the camera's own pictures,
until the model answers in time again. Nothing is kept but one picture.
"""

from __future__ import annotations

from enum import Enum

from stream.feed import ArrivedFrame, Finished

SIGN_AFTER_S = 1.0
"""A model that has a frame for longer is told to be stalled."""
CAMERA_AFTER_S = 3.0
"""A picture this late is as good as none: the camera is shown instead."""
REPEAT_EVERY_S = 0.1
"""How often the last picture is sent again; the sign moves, and a player sees life."""


class Shows(Enum):
    """What a session shows."""

    TRANSLATION = "translation"
    HELD = "held"
    """The last picture, with a sign."""
    CAMERA = "camera"
    """The camera's own picture."""


class StallWatch:
    """Watches the frames that go to the model and what comes back; used on the event loop.

    Times are ``time.perf_counter()``. A model that takes one to three seconds for each frame
    gives a slow show of pictures that all have the sign, so that it does not come and go; one
    that takes longer gives the camera.
    """

    def __init__(self) -> None:
        self.shows = Shows.TRANSLATION
        self.picture: Finished | None = None
        """The last one that was shown, but for repeats and stand-ins."""
        # Since when the model owes an answer; None: it owes none.
        self._since_s: float | None = None
        self._repeated_s = 0.0
        # The newest frame whose pts a stand-in has, and the last pts given away since.
        self._lent: tuple[int, int] | None = None

    def reset(self) -> None:
        """Forget everything: frames go past the model."""
        self.rest()
        self.picture = None

    def rest(self) -> None:
        """Note that the model owes no answer: the last picture is held on purpose."""
        self.shows = Shows.TRANSLATION
        self._since_s = None

    def submitted(self, now_s: float) -> Shows | None:
        """Note that the model got a frame.

        Returns:
            What has to be shown in its place now; None: nothing.
        """
        if self._since_s is None:
            self._since_s = now_s
        self._worsen(now_s - self._since_s)
        if self.shows is Shows.HELD:
            if now_s - self._repeated_s < REPEAT_EVERY_S:
                return None
            self._repeated_s = now_s
        return None if self.shows is Shows.TRANSLATION else self.shows

    def _worsen(self, silence_s: float) -> None:
        if self.shows is Shows.TRANSLATION and silence_s > SIGN_AFTER_S:
            self.shows = Shows.HELD if self.picture is not None else Shows.CAMERA
        if self.shows is Shows.HELD and silence_s > CAMERA_AFTER_S:
            self.shows = Shows.CAMERA

    def answered(self, finished: Finished, now_s: float) -> bool:
        """Note what came back.

        Returns:
            Whether it is to be shown, with the sign if ``shows`` then says ``HELD``; False: it
            is so old that the camera, which is shown by now, would jump back.
        """
        age_s = now_s - finished.arrived.arrived_s
        if self.shows is Shows.CAMERA and age_s > CAMERA_AFTER_S:
            return False
        # After the camera, by the answer's own time; the silence before it is over.
        is_fresh_start = self.shows is Shows.CAMERA or self._since_s is None
        took_s = age_s if is_fresh_start else now_s - (self._since_s or now_s)
        if self.shows is not Shows.TRANSLATION:
            is_slow = finished.is_translated and took_s > SIGN_AFTER_S
            self.shows = Shows.HELD if is_slow else Shows.TRANSLATION
        self._since_s = None
        self._repeated_s = now_s
        self.picture = finished
        self._put_after_stand_ins(finished)
        return True

    def lend_pts(self, arrived: ArrivedFrame) -> None:
        """Note that a stand-in was shown with the pts of this frame."""
        assert arrived.frame.pts is not None, "a decoded frame has a pts"
        self._lent = (arrived.number, arrived.frame.pts)

    def _put_after_stand_ins(self, finished: Finished) -> None:
        """Keep pts growing by one tick: the picture's own was overtaken by stand-ins."""
        if self._lent is None or finished.arrived.number > self._lent[0]:
            return
        self._lent = (self._lent[0], self._lent[1] + 1)
        finished.frame.pts = self._lent[1]
