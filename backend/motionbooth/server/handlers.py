"""The request handlers, for requests of an authorized key. They do not use sockets."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from motionbooth_protocol import messages
from motionbooth_protocol.errors import Malformed, NotAuthorized, OverLimit
from motionbooth_protocol.jobs import JobSpec

from motionbooth.server.job_queries import JobQueries
from motionbooth.server.keys import Key
from motionbooth.server.published_models import PublishedModels
from motionbooth.server.retention import Retention
from motionbooth.server.scheduler import Scheduler
from motionbooth.server.specs import encode_spec
from motionbooth.server.transfers import Transfers
from motionbooth.server.views import Views

audit = logging.getLogger("motionbooth.audit")

Reply = tuple[messages.AnyReply, bytes | None]  # and its payload


class RequestHandlers:
    """`waiting_jobs`: how many queued and running jobs a key may have; 0: no limit."""

    def __init__(
        self,
        queries: JobQueries,
        views: Views,
        scheduler: Scheduler,
        transfers: Transfers,
        retention: Retention,
        published: PublishedModels,
        waiting_jobs: int,
    ) -> None:
        self._queries = queries
        self._views = views
        self._scheduler = scheduler
        self._transfers = transfers
        self._retention = retention
        self._published = published
        self._waiting_jobs = waiting_jobs
        self._handlers: dict[type[messages.AnyRequest], Callable[[Key, Any], messages.AnyReply]] = {
            messages.Submit: self._submit,
            messages.Get: lambda key, request: views.snapshot(views.job_number(key, request.job), request.id),
            messages.GetSpec: self._get_spec,
            messages.ListJobs: self._list_jobs,
            messages.ListSubjects: lambda key, request: views.subjects(key.public, request),
            messages.Cancel: self._cancel,
            messages.Forget: self._forget,
            messages.GetStatus: views.status,
            messages.ListPublished: self._list_published,
            messages.ManageModel: self._manage_model,
            messages.Put: lambda key, request: transfers.put(key.public, request),
            messages.Ping: lambda key, request: messages.Pong(re=request.id),
            messages.Bye: lambda key, request: messages.Pong(re=request.id),
        }

    def handle(self, key: Key, request: messages.AnyRequest, payload: bytes | None) -> Reply:
        """Raises MotionBoothError, which is the reply then."""
        if isinstance(request, messages.PutChunk):
            return self._transfers.put_chunk(key.public, request, payload), None
        if payload is not None:
            raise Malformed("{request} has no payload.", request=type(request).__name__)
        if isinstance(request, messages.Fetch):
            return self._transfers.fetch(key.public, request)
        return self._handlers[type(request)](key, request), None

    def _submit(self, key: Key, request: messages.Submit) -> messages.AnyReply:
        if request.priority > 0 and not key.is_admin:
            raise NotAuthorized(
                "Only admins can use a priority above 0: send the job with 0 or less, or ask the backend's owner "
                "for the admin role."
            )
        if not self._queries.exists(key.public, request.job):
            self._check_limits(key, request.spec)
        job, cached = self._scheduler.submit(key.public, request.job, request.spec, request.priority)
        audit.info("%s submitted job %s (%s %s with %s)", key.name, job.id, job.kind, job.name, job.model)
        return messages.Accepted(re=request.id, job=job.id, state=job.state, cached=cached)

    def _check_limits(self, key: Key, spec: JobSpec) -> None:
        if self._waiting_jobs and self._queries.unfinished_count(key.public) >= self._waiting_jobs:
            raise OverLimit(
                "You have {most} jobs waiting, which is the limit for one key: wait for some of them to end, or "
                "cancel some.",
                most=self._waiting_jobs,
            )
        self._transfers.check_space(key.public, len(encode_spec(spec)))

    def _get_spec(self, key: Key, request: messages.GetSpec) -> messages.AnyReply:
        number = self._views.job_number(key, request.job)
        spec, priority = self._queries.spec(number), self._queries.job(number).priority
        return messages.Spec(re=request.id, job=request.job, spec=spec, priority=priority)

    def _list_jobs(self, key: Key, request: messages.ListJobs) -> messages.AnyReply:
        if request.all and not key.is_admin:
            raise NotAuthorized(
                "Only admins can list the jobs of all users; ask the backend's owner for the admin role."
            )
        return self._views.jobs(None if request.all else key.public, request)

    def _cancel(self, key: Key, request: messages.Cancel) -> messages.AnyReply:
        number = self._views.job_number(key, request.job, request.owner)
        state = self._scheduler.cancel(number)
        owner = self._views.owner_name(number)
        audit.info("%s canceled job %s of %s, which is %s", key.name, request.job, owner, state)
        return messages.Canceling(re=request.id, job=request.job, state=state)

    def _forget(self, key: Key, request: messages.Forget) -> messages.AnyReply:
        # Only the key's own jobs: an admin may cancel the jobs of others, not remove their results.
        if self._queries.exists(key.public, request.job):
            self._retention.forget(self._queries.number(key.public, request.job))
            audit.info("%s removed job %s", key.name, request.job)
        return messages.Forgotten(re=request.id, job=request.job)

    def _list_published(self, key: Key, request: messages.ListPublished) -> messages.AnyReply:
        if not key.is_admin:
            raise NotAuthorized(
                "Only admins can see and fetch the backend's models; ask the backend's owner for the admin role."
            )
        return messages.Published(re=request.id, models=self._published.listed())

    def _manage_model(self, key: Key, request: messages.ManageModel) -> messages.AnyReply:
        if not key.is_admin:
            raise NotAuthorized(
                "Only admins can see and fetch the backend's models; ask the backend's owner for the admin role."
            )
        self._published.manage(request)
        audit.info("%s began: %s the model %s", key.name, request.action, request.name)
        return messages.Published(re=request.id, models=self._published.listed())
