# SPDX-License-Identifier: Apache-2.0
"""What it means that a server refuses a request, by the status of its answer."""

from http import HTTPStatus

STOPPED_ANSWERING = "the server stopped answering"
FAILED = "the server failed"


def happened_with(status: int) -> str:
    """In words, with the next step where there is one."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return (
            "the server wants an API key, and not the one that it was sent: set VLLM_API_KEY, in "
            "serve.environment or this process's environment, or serve.options.api-key; of an arm "
            "with a url, name the variable that holds its key by --api-key-env"
        )
    if status == HTTPStatus.NOT_FOUND:
        return "the server does not know its own name: another one may answer on its port"
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return "the server refused a request"
    return FAILED


def status_in_words(status: int) -> str:
    """With its name, where it has one."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
