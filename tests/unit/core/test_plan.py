from hypothesis import given
from hypothesis import strategies as st

from fed.core.plan import Plan, PlannedObject
from fed.object import ObjectId

PARTIES = ("alice", "bob", "carol")


def made(plan: Plan, party: str) -> PlannedObject:
    step = plan.task(party, [])
    return PlannedObject(ObjectId(plan.epoch, step.sequence, 0), party)


def test_a_task_runs_in_its_party_only() -> None:
    assert Plan("alice", PARTIES).task("alice", []).here
    assert not Plan("bob", PARTIES).task("alice", []).here


def test_every_call_takes_one_number_whether_or_not_it_concerns_the_party() -> None:
    plan = Plan("alice", PARTIES)
    steps = [plan.task("alice", []), plan.task("bob", []), plan.get([]), plan.task("carol", [])]
    assert [step.sequence for step in steps] == [0, 1, 2, 3]
    assert plan.calls == 4


def test_an_argument_of_another_party_is_received_here_and_pushed_there() -> None:
    owner, consumer, third = Plan("alice", PARTIES), Plan("bob", PARTIES), Plan("carol", PARTIES)
    assert owner.task("bob", [made(owner, "alice")]).pushes == ((0, "bob"),)
    assert consumer.task("bob", [made(consumer, "alice")]).receives == (0,)
    bystander = third.task("bob", [made(third, "alice")])
    assert (bystander.receives, bystander.pushes, bystander.here) == ((), (), False)


def test_an_argument_of_the_own_party_crosses_nowhere() -> None:
    plan = Plan("alice", PARTIES)
    step = plan.task("alice", [made(plan, "alice")])
    assert (step.receives, step.pushes) == ((), ())


def test_an_object_crosses_to_a_party_once() -> None:
    owner = Plan("alice", PARTIES)
    one = made(owner, "alice")
    assert owner.task("bob", [one, one]).pushes == ((0, "bob"),)
    assert owner.task("bob", [one]).pushes == ()
    assert owner.get([one]).pushes == ((0, "carol"),)
    assert owner.get([one]).pushes == ()


def test_a_get_pushes_to_everybody_and_receives_from_everybody() -> None:
    plan = Plan("alice", PARTIES)
    step = plan.get([made(plan, "alice"), made(plan, "bob")])
    assert step.here
    assert step.receives == (1,)
    assert step.pushes == ((0, "bob"), (0, "carol"))


programs = st.lists(
    st.tuples(st.sampled_from([*PARTIES, "get"]), st.lists(st.integers(0, 20), max_size=4)), max_size=25
)


@given(programs)
def test_what_one_party_pushes_another_receives_and_nothing_else_moves(
    program: list[tuple[str, list[int]]],
) -> None:
    pushed: set[tuple[ObjectId, str]] = set()
    received: set[tuple[ObjectId, str]] = set()
    count = 0
    for party in PARTIES:
        plan = Plan(party, PARTIES)
        objects: list[PlannedObject] = []
        for bound, picks in program:
            uses = [objects[pick % len(objects)] for pick in picks] if objects else []
            step = plan.get(uses) if bound == "get" else plan.task(bound, uses)
            for position in step.receives:
                crossing = (uses[position].id, party)
                assert crossing not in received
                received.add(crossing)
            for position, consumer in step.pushes:
                crossing = (uses[position].id, consumer)
                assert crossing not in pushed
                assert uses[position].party == party
                pushed.add(crossing)
            if bound != "get":
                objects.append(PlannedObject(ObjectId(0, step.sequence, 0), bound))
        count += 1
    assert count == len(PARTIES)
    assert pushed == received
