"""Any notice that a party can read, and what it is made of, for random tests."""

from __future__ import annotations

from hypothesis import strategies as st

from fed.core.failure import MAX_CAUSES, MAX_HOPS, Failure, Kind
from fed.core.notice import Notice, NoticeKind
from fed.core.stall import MAX_SHOWN, PartyStatus, Wait
from fed.object import ObjectId
from fed.text import plain
from fed.transport import fields

# What is read is plain: at most ten characters for each of these.
names = st.text(min_size=1, max_size=12).map(plain)
labels = names.map(lambda text: fields.read_label(text, "label"))
shown = st.text(max_size=12).map(plain)
of_lines = st.text(max_size=50).map(lambda text: plain(text, lines=True))
epochs = st.integers(0, (1 << 32) - 1)
numbers = st.integers(0, (1 << 63) - 1)
digests = st.integers(0, (1 << 64) - 1)
ids = st.builds(ObjectId, epochs, numbers, st.integers(0, (1 << 32) - 1), digests)
failures = st.builds(
    Failure,
    error_id=names,
    kind=st.sampled_from(Kind),
    src_party=names,
    type_name=labels,
    task=labels,
    sequence=st.integers(-1, (1 << 63) - 1),
    cause_types=st.lists(labels, max_size=MAX_CAUSES).map(tuple),
    hops=st.lists(names, max_size=MAX_HOPS).map(tuple),
    detail=shown,
    message=of_lines,
    traceback=of_lines,
    truncated=st.booleans(),
)
waits = st.builds(Wait, labels, labels, labels)
standings = st.builds(
    PartyStatus,
    moves=numbers,
    idle=st.booleans(),
    running=numbers,
    in_flight=numbers,
    waiting=numbers,
    tasks=st.lists(labels, max_size=MAX_SHOWN).map(tuple),
    waits=st.lists(waits, max_size=MAX_SHOWN).map(tuple),
)
notices = st.one_of(
    st.builds(Notice, st.just(NoticeKind.ASK), epochs, calls=numbers),
    st.builds(Notice, st.just(NoticeKind.STANDING), epochs, calls=numbers, standing=standings),
    st.builds(Notice, st.sampled_from([NoticeKind.READY, NoticeKind.PING]), epochs),
    st.builds(Notice, st.just(NoticeKind.FAILURE), epochs, failures, st.lists(ids, min_size=1, max_size=3).map(tuple)),
    st.builds(Notice, st.just(NoticeKind.LATCHED), epochs, failures),
    st.builds(Notice, st.sampled_from([NoticeKind.PROGRESS, NoticeKind.RESET]), epochs, calls=numbers, digest=digests),
    st.builds(
        Notice,
        st.just(NoticeKind.JOURNAL),
        epochs,
        calls=numbers,
        texts=st.lists(shown, min_size=1, max_size=4).map(tuple),
    ),
    st.builds(Notice, st.just(NoticeKind.GOODBYE), epochs, st.none() | failures, calls=numbers, digest=digests),
)
