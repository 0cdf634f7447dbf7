"""Sends attached clients what happens to their jobs.

A durable event is read from the store for each attached client and sent when its socket has room, so that a slow reader
costs neither memory nor other clients' time. Progress and previews are sent if there is room, and dropped otherwise.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress

from motionbooth_protocol import messages
from motionbooth_protocol.codec import encode
from motionbooth_protocol.errors import NotFound
from motionbooth_protocol.jobs import TERMINAL_STATES
from motionbooth_protocol.reports import PreviewReport, ProgressReport

from motionbooth.server.attempts import JobNumber
from motionbooth.server.job_queries import JobQueries
from motionbooth.server.live_state import LiveState
from motionbooth.server.peers import Peer
from motionbooth.server.redaction import for_user

Send = Callable[[Peer, Sequence[bytes]], bool]


class Publisher:
    """`send` is False if the peer has no room now, or is gone."""

    def __init__(self, send: Send, queries: JobQueries, live: LiveState) -> None:
        self._send = send
        self._queries = queries
        self._live = live
        self._attached: defaultdict[JobNumber, set[Peer]] = defaultdict(set)
        self._due: dict[Peer, None] = {}  # those with room for the events that they lack; each in turn

    @property
    def has_more(self) -> bool:
        """Whether events wait that have room."""
        return bool(self._due)

    def attach(self, peer: Peer, job_number: JobNumber, after_seq: int) -> None:
        """Let the peer have the job's events after this one, once `add` is called."""
        peer.attached[job_number] = after_seq
        peer.due[job_number] = None
        self._attached[job_number].add(peer)

    def detach(self, peer: Peer) -> None:
        """From all of its jobs."""
        self._due.pop(peer, None)
        for job_number in list(peer.attached):
            self._detach(peer, job_number)

    def add(self, peer: Peer) -> None:
        """The peer may have room for the events that it lacks."""
        if peer.due and not peer.is_blocked:
            self._due[peer] = None

    def publish(self, seconds: float) -> None:
        """Send the news, and then for at most `seconds` the events that clients lack."""
        for job_number, report in self._live.take_updates():
            peers = list(self._attached.get(job_number, ()))
            if report is not None:
                self._send_report(peers, job_number, report)
                continue
            for peer in peers:
                peer.due[job_number] = None
                self.add(peer)
        until = time.monotonic() + seconds
        while self._due and time.monotonic() < until:
            peer = next(iter(self._due))
            del self._due[peer]
            self._send_events(peer, next(iter(peer.due)))
            self.add(peer)

    def _send_events(self, peer: Peer, job_number: JobNumber) -> None:
        """The events of one job, as far as there is room, and its latest reports."""
        try:
            events = self._queries.events(job_number, peer.attached[job_number])
        except NotFound:  # the owner has removed the job
            self._detach(peer, job_number)
            return
        for event in events:
            if not self._send(peer, encode(event if peer.is_admin else for_user(event))):
                return
            peer.attached[job_number] = event.seq
            if event.state in TERMINAL_STATES:
                self._detach(peer, job_number)
                return
        del peer.due[job_number]
        for report in (self._live.progress.get(job_number), self._live.previews.get(job_number)):
            if report is not None:
                self._send_report([peer], job_number, report)

    def _send_report(self, peers: list[Peer], job_number: JobNumber, report: ProgressReport | PreviewReport) -> None:
        with suppress(NotFound):  # the owner has removed the job meanwhile
            frames = self._encoded(job_number, report) if peers else []
            for peer in peers:
                self._send(peer, frames)

    def _encoded(self, job_number: JobNumber, report: ProgressReport | PreviewReport) -> list[bytes]:
        job = self._queries.job_id(job_number)
        if isinstance(report, ProgressReport):
            return encode(messages.Progress(job=job, report=report))
        return encode(messages.Preview(job=job, report=report))

    def _detach(self, peer: Peer, job_number: JobNumber) -> None:
        peer.attached.pop(job_number, None)
        peer.due.pop(job_number, None)
        self._attached[job_number].discard(peer)
        if not self._attached[job_number]:
            del self._attached[job_number]
