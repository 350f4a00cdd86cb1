"""The socket that systemd holds: clients do not notice that the daemon is away for a while."""

import json
import threading

from tests.conftest import until
from tests.systemd.box import SERVICE, SOCKET, Box


def test_a_client_starts_a_daemon_that_was_stopped(shared_box: Box) -> None:
    shared_box.run("systemctl", "stop", SERVICE)
    assert shared_box.unit(SERVICE, "ActiveState")["ActiveState"] == "inactive"
    id = shared_box.submit("alice", "-g", "0", "true")
    assert shared_box.until_state(id, "ended")["outcome"] == "succeeded"
    assert shared_box.unit(SERVICE, "ActiveState")["ActiveState"] == "active"


def test_a_client_that_asks_during_a_restart_gets_its_answer(shared_box: Box) -> None:
    shared_box.run("systemctl", "reset-failed")
    shared_box.run("systemctl", "stop", SERVICE)
    waiting = [shared_box.start("gpuq", "submit", "-g", "0", "true", user="bob") for _ in range(3)]
    shared_box.run("systemctl", "restart", SERVICE)
    for client in waiting:
        said, complaint = client.communicate(timeout=60)
        assert client.returncode == 0, complaint
        shared_box.until_state(int(said), "ended")


def test_no_submit_that_was_answered_is_lost_in_a_storm_of_restarts(shared_box: Box) -> None:
    shared_box.run("systemctl", "reset-failed")
    answered: list[int] = []
    refused: list[str] = []
    over = threading.Event()

    def go_on_submitting() -> None:
        while not over.is_set():
            done = shared_box.run(
                "gpuq", "submit", "-g", "0", "-n", "storm", "true", user="alice", fails=None
            )
            if done.returncode == 0:
                answered.append(int(done.stdout))
            else:
                refused.append(done.stderr)

    submitting = [threading.Thread(target=go_on_submitting) for _ in range(3)]
    for client in submitting:
        client.start()
    try:
        for blow in ("restart", "kill", "restart", "kill", "restart"):
            before, heard = shared_box.main_pid(), len(answered)
            if blow == "kill":
                shared_box.run("kill", "-KILL", str(before))
            else:
                shared_box.run("systemctl", "restart", SERVICE)
            until(lambda heard=heard: len(answered) > heard + 1, f"answers after a {blow}")
    finally:
        over.set()
        for client in submitting:
            client.join()
    assert not refused
    said = json.loads(shared_box.gpuq("status", "-a", "--limit", "0", "--json", user="alice"))[
        "jobs"
    ]
    known = {job["id"] for job in said if job["name"] == "storm"}
    assert set(answered) <= known
    for id in answered:
        assert shared_box.until_state(id, "ended")["outcome"] == "succeeded"


def test_stopping_the_daemon_for_good_takes_the_socket_along(shared_box: Box) -> None:
    shared_box.gpuq("daemon", "stop", user="root")
    for unit in (SERVICE, SOCKET):
        assert shared_box.unit(unit, "ActiveState")["ActiveState"] == "inactive"
    assert not shared_box.inside("/run/gpuq/gpuq.sock").exists()
    shared_box.gpuq("daemon", "start", user="root")
    assert shared_box.daemon()["pid"] == shared_box.until_active()
