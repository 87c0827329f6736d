"""Browsers, phones and log shippers, in the mix of a site that has them all; see README.md beside it."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable

import gevent
from locust import FastHttpUser, between, constant_pacing, task

try:
    from bench.locust import clients
except ImportError:
    # Run by its path, from anywhere.
    import clients  # type: ignore[import-not-found,no-redef]

KEY = os.environ.get("INGESTD_KEY", "")


if not KEY:
    # There would be nothing but 401.
    sys.exit("INGESTD_KEY is to hold an API key: 'ingestd key add load'")


class Client(FastHttpUser):
    """Sends until it is acknowledged, as an SDK does."""

    abstract = True
    make: Callable[[random.Random], clients.Post]

    def on_start(self) -> None:
        self.rng = random.Random()

    @task
    def send(self) -> None:
        """One request, again and again while the server asks for that."""
        post = type(self).make(self.rng)
        headers = {**post.headers, "Authorization": f"Bearer {KEY}"}
        name = f"{post.path} {type(self).__name__}"
        for attempt in range(clients.RETRIES_MAX + 1):
            with self.client.post(
                post.path,
                # It takes bytes, though its types do not say so.
                data=post.body,  # type: ignore[arg-type]
                headers=headers,
                name=name,
                catch_response=True,
            ) as answer:
                body = answer.json() if answer.status_code == 200 else (answer.text or "")[:200]
                wrong = clients.problem(answer.status_code, body, post.events)
                wait_s = clients.retry_after_s(answer.status_code, answer.headers or {}, attempt)
                if wrong is None or (answer.status_code == 429 and wait_s is not None):
                    # Being told to come later is no failure of either side.
                    answer.success()
                else:
                    answer.failure(wrong)
            if wrong is None or wait_s is None:
                return
            gevent.sleep(wait_s)


class Browser(Client):
    """Somebody who reads: an event every few seconds."""

    weight = 80
    wait_time = between(0.5, 5)
    make = staticmethod(clients.browser)


class Phone(Client):
    """An app that sends what has gathered."""

    weight = 18
    wait_time = between(5, 30)
    make = staticmethod(clients.mobile)


class LogShipper(Client):
    """A thousand events a second from each."""

    weight = 2
    wait_time = constant_pacing(1)
    make = staticmethod(clients.shipper)
