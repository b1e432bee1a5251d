"""A job followed in a terminal to its end, as the commands and the demo show it."""

from collections.abc import Callable

from app.terminal import Stopwatch, phase_words, progress_of
from drtl_client import Client, Job, Relation, events


def follow(client: Client, job: Job, watch: Stopwatch, on_graph: Callable[[Relation], None]) -> Job:
    """Show progress on the stopwatch's console, and hand out the relation graph once it is there.

    Returns the job as it ended. Bears an api that is started again meanwhile.
    """
    with progress_of(watch.console) as show:
        for event in client.jobs.watch(job):
            match event:
                case events.Progress():
                    show(phase_words(event.phase), event.progress, event.eta_s)
                case events.GraphReady():
                    on_graph(client.jobs.relation(job))
                case events.Requeued():
                    watch.say(f"the job waits for a worker again: {event.reason}")
                case events.Cancelling():
                    watch.say("the job is being cancelled")
                case _:
                    pass
    return client.jobs.get(job)
