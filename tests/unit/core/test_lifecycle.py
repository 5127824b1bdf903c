import pytest

from fed.core.lifecycle import JOB, PEER, JobChange, Lifecycle, PeerChange, PeerState, State


def running() -> Lifecycle:
    life = Lifecycle(["bob", "carol"])
    life.ready("bob")
    life.ready("carol")
    life.joined()
    return life


def test_work_is_accepted_while_running_only() -> None:
    life = Lifecycle(["bob"])
    accepted = [life.accepts_work]
    for step in (life.joined, life.close, life.closed):
        step()
        accepted.append(life.accepts_work)
    assert accepted == [False, True, False, False]


def test_e21_no_work_after_the_latch() -> None:
    life = running()
    assert life.latch()
    assert (life.state, life.latched) == (State.RUNNING, True)
    assert not life.accepts_work


def test_e06_the_latch_falls_once() -> None:
    life = running()
    assert [life.latch(), life.latch(), life.latch()] == [True, False, False]


def test_the_claim_to_close_is_granted_once_also_after_the_latch() -> None:
    life = running()
    life.latch()
    assert [life.close(), life.close()] == [True, False]
    life.closed()
    assert not life.close()


def test_a_failure_while_closing_latches_and_the_closing_goes_on() -> None:
    life = running()
    life.close()
    assert life.latch()
    assert life.state is State.CLOSING
    assert life.latched


def test_nothing_latches_a_closed_job() -> None:
    life = running()
    life.close()
    life.closed()
    assert not life.latch()
    assert not life.latched


def test_e20_the_root_is_told_once() -> None:
    life = running()
    life.latch()
    assert [life.tell(), life.tell()] == [True, False]
    assert life.told


def test_whom_a_join_waits_for() -> None:
    life = Lifecycle(["bob", "carol"])
    before = life.awaited
    life.ready("carol")
    assert (before, life.awaited) == (("bob", "carol"), ("bob",))


def test_a_peer_that_leaves_before_it_was_ready_is_a_quitter_and_one_that_was_ready_is_not() -> None:
    life = Lifecycle(["bob", "carol"])
    life.ready("bob")
    assert life.left("bob")
    assert life.left("carol")
    assert life.quitters == ("carol",)
    assert life.attentive == ()


def test_a_goodbye_counts_once() -> None:
    life = running()
    assert [life.left("bob"), life.left("bob")] == [True, False]
    assert life.attentive == ("carol",)


def test_a_job_that_was_latched_while_joining_stays_latched() -> None:
    life = Lifecycle(["bob"])
    life.latch()
    life.joined()
    assert (life.state, life.latched, life.accepts_work) == (State.RUNNING, True, False)


def test_no_root_is_told_where_nothing_has_failed() -> None:
    life = running()
    with pytest.raises(RuntimeError, match="nothing has failed"):
        life.tell()


def test_every_state_is_in_the_tables_and_every_change_happens_somewhere() -> None:
    assert set(JOB) == set(State)
    assert set(PEER) == set(PeerState)
    assert {change for changes in JOB.values() for change in changes} == set(JobChange)
    assert {change for changes in PEER.values() for change in changes} == set(PeerChange)
    # From what is over there is no way back.
    assert not JOB[State.CLOSED]
    assert not PEER[PeerState.LEFT]


def test_a_job_joins_once() -> None:
    life = running()
    with pytest.raises(RuntimeError, match="RUNNING cannot become JOINED"):
        life.joined()


def test_who_has_finished_still_listens_and_votes_and_who_has_left_does_not() -> None:
    life = running()
    assert life.finished("bob")
    assert not life.finished("bob")
    assert (life.busy, life.attentive, life.voters) == (("carol",), ("bob", "carol"), ("bob", "carol"))
    assert life.left("bob")
    assert not life.finished("bob")
    assert (life.busy, life.attentive, life.voters, life.gone) == (("carol",), ("carol",), ("carol",), ("bob",))


def test_e23_an_epoch_begins_when_all_have_asked_and_nobody_has_left() -> None:
    life = running()
    life.latch()
    life.tell()
    life.reset()
    life.asks_for_reset("bob")
    assert (life.may_switch, life.unready_for_reset) == (False, ("carol",))
    life.asks_for_reset("carol")
    assert life.may_switch
    life.switched()
    assert (life.state, life.latched, life.told, life.unready_for_reset) == (
        State.RUNNING,
        False,
        False,
        ("bob", "carol"),
    )
    life.reset()
    life.left("bob")
    life.asks_for_reset("bob")
    life.asks_for_reset("carol")
    may_switch = life.may_switch
    life.not_reset()
    assert (may_switch, life.accepts_work) == (False, True)


def test_a_job_that_is_over_is_not_reset() -> None:
    life = running()
    life.close()
    with pytest.raises(RuntimeError, match="CLOSING"):
        life.reset()
