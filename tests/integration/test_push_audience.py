"""The users in a table, a chunk at a time, and a broadcast to them that goes on where it was."""

import uuid

import pytest
from sqlalchemy import Boolean, Column, Integer, MetaData, Table, Text, Uuid, insert

from errands import ConfigurationError
from errands.kits.push import SqlAudience
from errands.store.engine import Database

metadata = MetaData()
numbered = Table(
    "app_numbered",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("role", Text),
    Column("on", Boolean),
)
named = Table("app_named", metadata, Column("id", Text, primary_key=True))
keyed = Table("app_keyed", metadata, Column("id", Uuid, primary_key=True))


@pytest.fixture
async def tables(database: Database):
    metadata.create_all(database.engine)
    with database.writing() as connection:
        rows = [
            {"id": n, "role": "teacher" if n % 3 == 0 else "student", "on": n != 9} for n in range(1, 101)
        ]
        connection.execute(insert(numbered), rows)
    yield database
    await database.adispose()


async def everybody(audience, role=None, after=None):
    return [list(chunk) async for chunk in audience.users(role, after)]


async def all_of(audience, role=None, after=None):
    return [user for chunk in await everybody(audience, role, after) for user in chunk]


async def test_all_users_come_in_chunks_and_in_order(tables):
    chunks = await everybody(SqlAudience(tables, numbered.c.id, chunk=30))
    assert [len(chunk) for chunk in chunks] == [30, 30, 30, 10]
    assert [user for chunk in chunks for user in chunk] == list(range(1, 101))


async def test_it_goes_on_after_a_user(tables):
    audience = SqlAudience(tables, numbered.c.id, chunk=30)
    assert await all_of(audience, after=95) == [96, 97, 98, 99, 100]
    assert await everybody(audience, after=100) == []


async def test_a_role_and_a_condition(tables):
    audience = SqlAudience(tables, numbered.c.id, role=numbered.c.role, where=numbered.c.on)
    assert await all_of(audience, "teacher") == [n for n in range(3, 101, 3) if n != 9]
    assert len(await all_of(audience)) == 99
    assert await everybody(audience, "nobody") == []
    by_function = SqlAudience(tables, numbered.c.id, role=lambda role: numbered.c.role == role)
    assert len(await all_of(by_function, "teacher")) == 33


async def test_a_role_that_nothing_tells_is_refused(tables):
    with pytest.raises(ConfigurationError, match="teacher"):
        await everybody(SqlAudience(tables, numbered.c.id), "teacher")
    with pytest.raises(ConfigurationError, match="chunk=0"):
        SqlAudience(tables, numbered.c.id, chunk=0)


async def test_texts_ascend_as_python_compares_them(tables):
    names = ["a-b", "ab", "a b", "A", "B", "ä", "z", "Z", "世", "a_b", "10", "9", "_", "🎓", "é"]
    with tables.writing() as connection:
        connection.execute(insert(named), [{"id": name} for name in names])
    for chunk in (1, 4, 100):
        assert await all_of(SqlAudience(tables, named.c.id, chunk=chunk)) == sorted(names)


async def test_uuids_come_as_texts(tables):
    ids = [uuid.uuid4() for _ in range(50)]
    with tables.writing() as connection:
        connection.execute(insert(keyed), [{"id": each} for each in ids])
    texts = sorted(str(each) for each in ids)
    audience = SqlAudience(tables, keyed.c.id, chunk=7)
    assert await all_of(audience) == texts
    assert await all_of(audience, after=texts[20]) == texts[21:]
