"""RecordHistory: samples the numbers of all workers for the history on the page. One worker runs it."""

from application.ports.history import History, HistoryArchive
from domain.history import SAMPLE_SECONDS
from domain.ports import Clock


class RecordHistory:
    """Adds what happened to the history every ten seconds, and stores what has changed. A service that does nothing
    stores nothing.
    """

    def __init__(self, history: History, archive: HistoryArchive, clock: Clock) -> None:
        self._history = history
        self._archive = archive
        self._clock = clock

    async def begin(self) -> None:
        """Take over the history of the last run."""
        self._history.begin(self._clock.now())
        self._history.restore(await self._archive.load())

    @property
    def pause(self) -> float:
        """The seconds until the next sample. Samples are taken at the ends of buckets."""
        return SAMPLE_SECONDS - self._clock.now() % SAMPLE_SECONDS

    async def record(self) -> None:
        """Take a sample."""
        now = self._clock.now()
        if changed := self._history.record(now):
            await self._archive.save(changed, now)
