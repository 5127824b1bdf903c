"""What must hold of every job, whatever went wrong in it and whatever came first.

`violations` holds the accounts of all parties against the program, and says in sentences what is not as it must be.

The values come from a plain sequential evaluation of the program. It also tells what is *doomed*: what cannot be
because a task fails.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tests.soak.player import Account, Counter, Handled, Hidden, Leg, bag, digest, plain
from tests.soak.programs import Create, Get, Job, Kill, Method, Ref, Stretch, Task

__all__ = ["Evaluated", "evaluate", "violations"]

SYMMETRIC: Final = frozenset(
    {"TASK", "CANCELLED", "WORKER_CRASHED", "OUT_OF_MEMORY", "ACTOR_DIED", "OBJECT_LOST", "UNSERIALIZABLE"}
)


class _Doomed:
    """In place of what cannot be."""


_DOOMED: Final = _Doomed()


@dataclasses.dataclass
class Evaluated:
    """What a stretch comes to without a federation.

    Attributes:
        values: Of each operation that makes or gets some, by its number; what cannot be is missing.
        troubled: Whether something in it may fail.
        fails: Whether something in it does, if all of it is run. An actor that is killed while it is made may not.
        unserializable: Whether a value in it is needed by another party and may not cross.
    """

    values: dict[int, Any] = dataclasses.field(default_factory=dict)
    troubled: bool = False
    fails: bool = False
    unserializable: bool = False


def evaluate(stretch: Stretch) -> Evaluated:
    """Evaluate a stretch in one place, one operation after the other."""
    found = Evaluated()
    made: dict[Ref, Any] = {}
    owners: dict[Ref, str] = {}
    actors: dict[int, Counter | None] = {}
    homes: dict[int, str] = {}
    killed = {operation.actor for operation in stretch.operations if isinstance(operation, Kill)}

    def filled(what: Any, party: str | None) -> Any:
        """Arguments of a call at a party, or at all of them; `_DOOMED` if one of them cannot be there."""
        if isinstance(what, Ref):
            value = made[what]
            if isinstance(value, Hidden) and owners[what] != party:
                found.troubled = found.fails = found.unserializable = True
                return _DOOMED
            return value
        if isinstance(what, dict):
            values = {name: filled(part, party) for name, part in what.items()}
            return _DOOMED if _DOOMED in values.values() else values
        if isinstance(what, (list, tuple)):
            several = [filled(part, party) for part in what]
            return _DOOMED if any(part is _DOOMED for part in several) else several
        return what

    for number, operation in enumerate(stretch.operations):
        if isinstance(operation, Get):
            value = filled(operation.what, None)
            if value is not _DOOMED:
                found.values[number] = plain(value)
        elif isinstance(operation, Kill):
            actors[operation.actor] = None
        elif isinstance(operation, Create):
            homes[number] = operation.party
            start = filled(operation.start, operation.party)
            doomed = start is _DOOMED or operation.fails
            found.troubled |= operation.fails
            found.fails |= start is not _DOOMED and operation.fails and number not in killed
            actors[number] = None if doomed else Counter(start, fails=False)
        elif isinstance(operation, Method):
            actor = actors[operation.actor]
            argument = filled(operation.argument, homes[operation.actor])
            found.troubled |= actor is None
            found.fails |= actor is None
            made[Ref(number)] = _DOOMED if actor is None or argument is _DOOMED else actor.add(0.0, argument)
            owners[Ref(number)] = homes[operation.actor]
        else:
            results = _results(operation, filled(operation.arguments, operation.party))
            found.troubled |= results is None
            found.fails |= results is None
            for slot in range(operation.returns):
                made[Ref(number, slot)] = _DOOMED if results is None or results is _DOOMED else results[slot]
                owners[Ref(number, slot)] = operation.party
    return found


def _results(task: Task, arguments: Any) -> Any:
    """The results of a task: None if it fails, `_DOOMED` if it is not run."""
    if arguments is _DOOMED:
        return _DOOMED
    if task.tool == "mix":
        return [bag(task.detail, *arguments)]
    if task.tool == "spread":
        return [digest(arguments[1]) + number for number in range(task.returns)]
    return [Hidden(digest(*arguments))] if task.tool == "hide" else None


def violations(job: Job, accounts: Mapping[str, Account]) -> list[str]:
    """What is not as it must be, as sentences.

    Args:
        job: What was played.
        accounts: What each party saw.
    """
    if set(accounts) != set(job.parties):
        return [f"only {sorted(accounts)} have ended"]
    return [f"{text}" for law in (_values, _handlers, _ends, _beginnings) for text in law(job, accounts)]


def _values(job: Job, accounts: Mapping[str, Account]) -> Iterator[str]:
    """A `fed.get` returns what the program is worth, in every party; and it fails for the same reason in every party.

    Where the first failure ends the job, a party may get its own value of an object that cannot cross before it ends:
    what the evaluation has no value for is then compared with nothing.
    """
    for epoch, stretch in enumerate(job.stretches):
        evaluated = evaluate(stretch)
        refusals: dict[str, set[str]] = {}
        slipped = {party: leg.slipped for party, leg in _legs(accounts, epoch)}
        for party, leg in _legs(accounts, epoch):
            for number, value in leg.got.items():
                known = int(number) in evaluated.values
                if known and value != evaluated.values[int(number)]:
                    yield f"epoch {epoch}: {party} got {value!r} of #{number}, not {evaluated.values[int(number)]!r}"
                # Who goes another way may have its own value for what the others cannot have.
                own = evaluated.unserializable and job.options["on_error"] == "abort"
                if not known and not own and not slipped[party]:
                    yield f"epoch {epoch}: {party} got {value!r} of #{number}, which cannot be"
            for number, error_id in leg.refused.items():
                if int(number) in evaluated.values and not any(slipped.values()):
                    yield f"epoch {epoch}: {party} was refused #{number}, which is there"
                refusals.setdefault(number, set()).add(error_id)
        for number, ids in refusals.items():
            if len(ids) > 1:
                yield f"epoch {epoch}: #{number} failed for different reasons: {sorted(ids)}"


def _handlers(job: Job, accounts: Mapping[str, Account]) -> Iterator[str]:
    """Where a handler ran in an epoch it ran once in every party, for the same root, which the driver saw too.

    Without exception: who has gone on to the next epoch knows that nobody has failed in this one, or that all have;
    and who has left without an error knows that all have ended alike.
    """
    ran = {party: _handled_by_epoch(account) for party, account in accounts.items()}
    for epoch in range(len(job.stretches)):
        roots = {party: [run.error_id for run in ran[party].get(epoch, ())] for party in job.parties}
        if not any(roots.values()):
            continue
        if len(set().union(*roots.values())) > 1:
            yield f"epoch {epoch}: the roots differ: {roots}"
        for party, ids in roots.items():
            account = accounts[party]
            if len(account.legs) <= epoch:
                yield f"epoch {epoch}: {party} never came to it, but others failed in it"
            elif len(ids) != 1:
                yield f"epoch {epoch}: the handler of {party} ran {len(ids)} times: {roots}"
            else:
                yield from _root_seen(job, account, epoch, ids[0])
    for party, account in accounts.items():
        if not all(run.in_failures for run in account.handled):
            yield f"{party}: a root is not among the failures"


def _root_seen(job: Job, account: Account, epoch: int, root: str) -> Iterator[str]:
    """The driver saw the root that the handler was told of, or left in its own way."""
    leg = account.legs[epoch]
    seen = [error.error_id for error in leg.seen]
    last = epoch == len(account.legs) - 1
    if last:
        own = account.end.type in ("SlipError", "SystemExit")
        told = account.end.error_id == root or root in seen or own
        # An isolated failure that the program dies of ends the job for itself.
        died = job.options["on_error"] == "isolate" and account.end.type in (
            "TaskError",
            "RemoteError",
            "DeliveryError",
        )
        if not told and not died:
            yield f"epoch {epoch}: {account.party} ended with {account.end}, but the root is {root}"
    elif root not in seen:
        # By `fed.reset` at the latest, which raises before it begins anew.
        yield f"epoch {epoch}: {account.party} saw {seen}, but the root is {root}"


def _ends(job: Job, accounts: Mapping[str, Account]) -> Iterator[str]:
    """A program without trouble ends without error. What must be noticed is noticed, by everyone, before the end."""
    isolate = job.options["on_error"] == "isolate"
    evaluated = [evaluate(stretch) for stretch in job.stretches]
    troubled = any(found.troubled for found in evaluated) or any(stretch.slips for stretch in job.stretches)
    ran = {party: _handled_by_epoch(account) for party, account in accounts.items()}
    for party, account in accounts.items():
        end = account.end
        if not troubled and (end.type or account.handled or any(leg.seen for leg in account.legs)):
            yield f"{party} ended with {end}, with nothing wrong in the program"
        if len(account.legs) < len(job.stretches) and not end.type and not account.legs[-1].slipped:
            yield f"{party} ended in epoch {len(account.legs) - 1} without an error"
        allowed = ("", "TaskError", "RemoteError", "JobAborted", "JobInterrupted", "PartyLeftError", "DeliveryError",
                   "DivergenceError", "SlipError", "SystemExit")  # fmt: skip
        if end.type not in allowed:
            yield f"{party} ended with {end}"
        handled_last = ran[party].get(len(account.legs) - 1, [])
        failed = end.type not in ("", "SlipError", "SystemExit")
        if failed and not handled_last and not (isolate and end.src_party == party):
            # Isolated failures of its own that nobody has read are told at the end.
            yield f"{party} ended with {end}, but its handler did not run"
        if handled_last and job.handlers.get(party) == "exits" and (end.type, end.code) != ("SystemExit", 7):
            yield f"{party} ended with {end}, but its handler called sys.exit(7)"
    for epoch in range(len(job.stretches)):
        anybody = any(ran[party].get(epoch) for party in job.parties)
        for party, leg in _legs(accounts, epoch):
            if leg.slipped and not anybody:
                yield f"epoch {epoch}: that {party} {leg.slipped} went unnoticed"
    last = len(job.stretches) - 1
    everywhere = all(len(account.legs) == last + 1 for account in accounts.values())
    due = evaluated[last].fails and not isolate
    if everywhere and due and not any(ran[party].get(last) for party in job.parties):
        yield "what failed in the last epoch went unnoticed"


def _beginnings(job: Job, accounts: Mapping[str, Account]) -> Iterator[str]:
    """A new epoch knows nothing of the failures of earlier ones."""
    for party, account in accounts.items():
        earlier: set[str] = set()
        for epoch, leg in enumerate(account.legs):
            stretch = job.stretches[epoch]
            if earlier.intersection(leg.begun_with):
                yield f"epoch {epoch}: {party} began with failures of an earlier one: {leg.begun_with}"
            # A quicker party may have failed in this epoch already.
            if leg.begun_with and not evaluate(stretch).troubled and not stretch.slips:
                yield f"epoch {epoch}: {party} began with {leg.begun_with}"
            strange = [failure for failure in leg.known if _epoch_of(failure[2]) not in (None, epoch)]
            if strange:
                yield f"epoch {epoch}: {party} knew {strange}"
            earlier |= {error.error_id for error in leg.seen} | {failure[0] for failure in leg.known}


def _legs(accounts: Mapping[str, Account], epoch: int) -> list[tuple[str, Leg]]:
    return [(party, account.legs[epoch]) for party, account in accounts.items() if len(account.legs) > epoch]


def _handled_by_epoch(account: Account) -> dict[int, list[Handled]]:
    """Runs of the handler. A failure without a task is one that no program goes on after: it is of the last epoch."""
    found: dict[int, list[Handled]] = {}
    for run in account.handled:
        epoch = _epoch_of(run.task)
        found.setdefault(len(account.legs) - 1 if epoch is None else epoch, []).append(run)
    return found


def _epoch_of(task: str) -> int | None:
    """The epoch in the name of a task, as `tests.soak.player.tools` names them."""
    named = re.search(r"_(\d+)\b", task)
    return None if named is None else int(named[1])
