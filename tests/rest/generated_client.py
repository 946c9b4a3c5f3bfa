"""What a user does with a client that was generated from /openapi.json: every operation but the streams.

usage: generated_client.py URL IMAGE, with the package `orchestrator_client` on the path. IMAGE is what the
nodes of a test environment are made from.
"""

import importlib
import pkgutil
import sys
from uuid import UUID

from attrs import fields, has

import orchestrator_client
from orchestrator_client import Client, models
from orchestrator_client.models import NewTaskRequest, TaskStatus
from orchestrator_client.types import UNSET

# A status code that the document does not have is an error.
client = Client(base_url=sys.argv[1], raise_on_unexpected_status=True)

OPERATIONS = {
    module.rsplit(".", 1)[1]: importlib.import_module(module)
    for _, module, is_package in pkgutil.walk_packages(orchestrator_client.__path__, "orchestrator_client.")
    if module.startswith("orchestrator_client.api.") and not is_package
}
# The client waits for the end of an answer, and this one has none.
STREAMS = {"listen_to_events"}
asked = set()


def check_described(value):
    """Fails where an answer has a member that the document does not have."""
    if isinstance(value, list):
        for item in value:
            check_described(item)
    elif has(type(value)):
        described = [field.name for field in fields(type(value)) if field.name != "additional_properties"]
        further = getattr(value, "additional_properties", {})
        # A type without members of its own is a map.
        assert not described or not further, f"{type(value).__name__} also has {sorted(further)}"
        for name in described:
            check_described(getattr(value, name))


def ask(operation, code, /, *arguments, **options):
    """Asks something, and returns what the client made of the answer."""
    asked.add(operation)
    answer = OPERATIONS[operation].sync_detailed(*arguments, client=client, **options)
    assert answer.status_code == code, f"{operation}: {answer.status_code} {answer.content}"
    check_described(answer.parsed)
    return answer.parsed


def submit(code, /, *tasks, wait=UNSET, **options):
    body = models.GraphRequest(tasks=[NewTaskRequest(**task) for task in tasks], wait=wait)
    return ask("submit_workflow", code, body=body, **options).data


# How the engine is.
assert ask("get_health", 200).data.accepts_work
assert ask("get_readiness", 200).success
assert ask("get_status", 200).data.paused is False
assert ask("diagnose", 200).data.checks
ask("get_openapi", 200)

# Submit, wait, read.
hello = {"script": "hello", "params": {"who": "you"}}
first = submit(202, hello, idempotency_key="hello")
assert isinstance(first, UUID), first
assert submit(202, hello, idempotency_key="hello") == first
task = ask("get_task", 200, first, wait=True).data
assert task.status == TaskStatus.COMPLETED and task.id == first, task
lines = [entry.line for entry in ask("get_task_logs", 200, first, tail=10).data]
assert lines[:2] == ['{"who":"you"}', "hello"], lines
assert ask("explain_task", 200, first).data.reasons[0].message
finished = submit(200, {"script": "hello", "name": "one"}, {"script": "hello", "name": "two"}, wait=True)
assert [task.name for task in finished.tasks] == ["one", "two"], finished
failed = submit(200, {"script": "fails"}, wait=True)
assert (failed.status, failed.error) == (TaskStatus.FAILED, "it never works"), failed

# List, page by page.
names, cursor = [], UNSET
while cursor is not None:
    page = ask("list_tasks", 200, status="completed", limit=2, cursor=cursor)
    names += [task.name for task in page.data]
    cursor = page.cursor
assert sorted(names) == ["hello", "one", "two"], names

# Call off, and try again.
gate = submit(202, {"script": "gate"})
cancelled = ask("cancel_task", 200, gate, body=models.CancelRequest(reason="not now")).data.task
assert cancelled.cancel_reason == "not now", cancelled
assert ask("get_task", 200, gate, wait=True).data.status == TaskStatus.CANCELLED
assert ask("retry_task", 200, gate, body=models.EmptyRequest()).data.task.status == TaskStatus.PENDING

# Servers, taskservs and clusters, with a worker that does nothing.
common = {"infra": "production", "settings": "settings.yaml", "wait": True, "allow_concurrent": True}
for operation, request in {
    "create_servers": models.CreateServersRequest(servers=["web-01"], **common),
    "create_taskserv": models.TaskservRequest(taskserv="redis", **common),
    "create_cluster": models.ClusterRequest(cluster_type="cache", operation=models.Operation.VERIFY, **common),
    "delete_servers": models.DeleteServersRequest(servers=["web-01"], **common),
}.items():
    workflow = ask(operation, 200, body=request).data
    assert workflow.status == TaskStatus.COMPLETED, workflow

# A test environment of two nodes on which nothing is installed, from its creation to its end.
nodes = [models.NodeRequest(name=name, base_image=sys.argv[2]) for name in ("one", "two")]
config = models.ClusterTopologyRequest(
    type_=models.ClusterTopologyType.CLUSTER_TOPOLOGY,
    cluster_type="bare",
    topology=models.TopologyRequest(nodes=nodes),
)
made = ask("create_test_environment", 202, body=models.EnvironmentRequest(config=config, infra="client")).data
id = made.environment
assert ask("get_task", 200, made.task, wait=True).data.status == TaskStatus.COMPLETED, made
environment = ask("get_test_environment", 200, id).data
assert environment.status == models.EnvironmentStatus.READY, environment
assert [node.name for node in environment.nodes] == ["one", "two"], environment
assert all(node.container and node.address for node in environment.nodes), environment
assert isinstance(environment.request.config, models.ClusterTopologyRequest), environment
assert [one.id for one in ask("list_test_environments", 200, infra="client").data] == [id]
for fault in models.Pause(kind=models.PauseKind.PAUSE, node="one"), models.Heal(kind=models.HealKind.HEAL), models.Unpause(
    kind=models.UnpauseKind.UNPAUSE, node="one"
):
    assert ask("inject_fault", 200, id, body=models.InjectFaultRequest(fault=fault)).data.id == id
ran = ask("run_test_environment", 200, id, body=models.RunRequest(wait=True)).data
assert ran.status == models.EnvironmentStatus.PASSED, ran
ask("get_test_environment_logs", 200, id, node="one", tail=10)
gone = ask("delete_test_environment", 200, id, wait=True).data
assert gone.status == models.EnvironmentStatus.CLEANED and gone.cleaned_at, gone
assert "etcd_cluster" in [topology.name for topology in ask("list_topologies", 200).data]
assert ask("prune_prepared_images", 200, body=models.EmptyRequest()).data.bytes_ >= 0

# Errors.
unknown = ask("get_task", 404, UUID("01890a5d-ac96-774b-bcce-b302099a8057"))
assert unknown.code == "not_found" and unknown.success is False and unknown.error, unknown
wrong = ask("create_servers", 422, body=models.CreateServersRequest(servers=["--x;^rm"], **common))
assert wrong.code == "invalid" and wrong.details["field"] == "servers[0]", wrong
config = models.SingleTaskservRequest(type_=models.SingleTaskservType.SINGLE_TASKSERV, taskserv="nowhere")
wrong = ask("create_test_environment", 422, body=models.EnvironmentRequest(config=config))
assert wrong.details["field"] == "config.taskserv", wrong
assert ask("get_test_environment", 404, UUID("01890a5d-ac96-774b-bcce-b302099a8057")).code == "not_found"
assert ask("retry_task", 409, first, body=models.EmptyRequest()).code == "conflict"

# Where the records are, and moving them.
assert ask("get_storage", 200).data.state == "active"
target = models.MigrationRequest(storage_type="filesystem", dir_="elsewhere")
assert ask("validate_migration", 200, body=target).data.is_possible
migration = ask("start_migration", 202, body=target).data
assert ask("get_migration", 200, migration.id).data.to.location == migration.to.location
ask("cancel_migration", 200, migration.id, body=models.EmptyRequest())
assert [known.id for known in ask("list_migrations", 200).data] == [migration.id]

# The queue, and the end.
assert ask("pause_queue", 200, body=models.QueueRequest(group="production")).data.groups == ["production"]
assert ask("resume_queue", 200, body=models.QueueRequest(group="production")).data.groups == []
ask("stop_engine", 202, body=models.StopRequest(mode=models.StopMode.CANCEL))

assert asked == OPERATIONS.keys() - STREAMS, f"never asked: {OPERATIONS.keys() - STREAMS - asked}"
