import hashlib
from contextlib import closing
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manyminds.errors import LedgerError
from manyminds.ledger import SCHEMA, Ledger
from manyminds.types import Key
from tests.changed import replace

NUMBERS = count()
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
COUNT = st.none() | st.integers(0, 2**62)
KEYS = st.builds(
    Key,
    id=st.just(""),
    name=TEXT,
    models=st.lists(TEXT, max_size=3).map(tuple),
    requests_per_min=COUNT,
    tokens_per_min=COUNT,
    budget_usd=st.none() | st.floats(0, 1e6),
    period=st.sampled_from(["day", "month", "total"]),
    admin=st.booleans(),
)


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(key=KEYS, changed=KEYS)
def test_a_key_is_kept_as_it_is_until_it_is_revoked(ledger: Ledger, key: Key, changed: Key) -> None:
    key = replace(key, id=f"k{next(NUMBERS)}")
    ledger.add_key(key, digest(key.id))
    assert ledger.keys()[digest(key.id)] == key
    changed = replace(changed, id=key.id)
    assert ledger.update_key(changed)
    assert ledger.keys()[digest(key.id)] == changed
    assert ledger.revoke_key(key.id)
    assert ledger.keys() == {}
    assert not ledger.revoke_key(key.id)
    assert not ledger.update_key(key)


def test_neither_an_id_nor_a_secret_is_given_twice(ledger: Ledger) -> None:
    ledger.add_key(Key("1", "ann"), digest("a"))
    ledger.revoke_key("1")
    for key, secret in ((Key("1", "bob"), "b"), (Key("2", "bob"), "a")):
        with pytest.raises(LedgerError, match="already"):
            ledger.add_key(key, digest(secret))
    assert ledger.keys() == {}
    assert not ledger.revoke_key("2")


def test_keys_are_there_for_other_gateways_at_once(ledger: Ledger, url: str) -> None:
    with closing(Ledger(url)) as other:
        ledger.add_key(Key("1", "ann"), digest("a"))
        assert other.keys() == {digest("a"): Key("1", "ann")}
        assert other.revoke_key("1")
        assert ledger.keys() == {}


def test_schema_5_knew_no_administrator(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        ledger.add_key(Key("1", "ann", admin=True), digest("a"))
        with ledger._database.engine.begin() as raw:  # as it was
            raw.exec_driver_sql("ALTER TABLE keys DROP COLUMN admin")
            raw.exec_driver_sql("UPDATE schema SET version = 5")
    with closing(Ledger(url)) as ledger:
        assert ledger.keys() == {digest("a"): Key("1", "ann")}
        ledger.add_key(Key("2", "bob", admin=True), digest("b"))
        assert ledger.keys()[digest("b")].admin
        with ledger._database.engine.begin() as raw:
            assert raw.exec_driver_sql("SELECT version FROM schema").scalar_one() == SCHEMA


def test_what_no_column_holds_is_an_error_without_it(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="cannot hold a value") as caught:
        ledger.add_key(Key("1", "hunter2\ud800"), digest("a"))
    assert "hunter2" not in caught.value.message
    assert ledger.keys() == {}
