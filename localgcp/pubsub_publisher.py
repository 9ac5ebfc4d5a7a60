"""google.pubsub.v1.Publisher but Publish, which is in pubsub.py, and google.iam.v1.IAMPolicy."""

from __future__ import annotations

from functools import partial
from typing import Any

from google.iam.v1 import iam_policy_pb2
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

from localgcp.faults import Faults
from localgcp.pubsub_method import Method
from localgcp.pubsub_requests import (
    Invalid,
    page,
    require_change_of_topic,
    require_name,
    require_topic,
)
from localgcp.topics import NotFound, Topics

_Active = types.Topic.State.ACTIVE


def publisher(topics: Topics) -> dict[str, Method]:
    """The methods by name."""

    def create(request: Any, _: Any) -> Any:
        require_topic(request)
        request.state = _Active
        topics.create_topic(request)
        return request

    def get(request: Any, _: Any) -> Any:
        require_name("topics", request.topic)
        return topics.topic(request.topic).resource

    def update(request: Any, _: Any) -> Any:
        require_change_of_topic(request)
        return topics.update_topic(request.topic.name, partial(_change, request))

    def delete(request: Any, _: Any) -> Any:
        require_name("topics", request.topic)
        topics.delete_topic(request.topic)
        return empty_pb2.Empty()

    def listing(request: Any, _: Any) -> Any:
        require_name("projects", request.project)
        found, token = page(topics.topics(request.project), request)
        return types.ListTopicsResponse.pb()(topics=found, next_page_token=token)

    def subscriptions(request: Any, _: Any) -> Any:
        require_name("topics", request.topic)
        found, token = page(topics.subscriptions_of(request.topic), request)
        answer = types.ListTopicSubscriptionsResponse.pb()
        return answer(subscriptions=found, next_page_token=token)

    return {
        "CreateTopic": Method(types.Topic.pb(), create, lambda r: r.name),
        "GetTopic": Method(types.GetTopicRequest.pb(), get, _topic),
        "UpdateTopic": Method(types.UpdateTopicRequest.pb(), update, lambda r: r.topic.name),
        "DeleteTopic": Method(types.DeleteTopicRequest.pb(), delete, _topic),
        "ListTopics": Method(types.ListTopicsRequest.pb(), listing, lambda r: r.project),
        "ListTopicSubscriptions": Method(
            types.ListTopicSubscriptionsRequest.pb(), subscriptions, _topic
        ),
    }


def iam_policy(topics: Topics, faults: Faults) -> dict[str, Method]:
    """The methods of IAMPolicy by name. Everyone may do everything with what exists, but what
    `faults` withholds."""

    def granted(request: Any, _: Any) -> Any:
        if any("*" in permission for permission in request.permissions):
            raise Invalid("permissions with wildcards cannot be asked for")
        there = request.permissions if _exists(topics, request.resource) else ()
        return iam_policy_pb2.TestIamPermissionsResponse(permissions=faults.granted(there))

    request = iam_policy_pb2.TestIamPermissionsRequest
    return {"TestIamPermissions": Method(request, granted, lambda r: r.resource)}


def _exists(topics: Topics, resource: str) -> bool:
    """IAM answers no permissions, and not NOT_FOUND, for what does not exist."""
    find = topics.subscription if "/subscriptions/" in resource else topics.topic
    try:
        find(resource)
    except NotFound:
        return False
    return True


def _change(request: Any, topic: Any) -> None:
    """A field that the mask names and the request leaves out is cleared."""
    given, paths = request.topic, set(request.update_mask.paths)
    for path in paths:
        topic.ClearField(path)
    for name in [field.name for field, _ in given.ListFields() if field.name not in paths]:
        given.ClearField(name)
    topic.MergeFrom(given)


def _topic(request: Any) -> str:
    return str(request.topic)
