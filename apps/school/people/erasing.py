"""What the school keeps of a person besides their runs, and what becomes of it when they are erased."""

from __future__ import annotations

from sqlalchemy import delete, update

from errands.kits.storage import Files
from school.app import app
from school.people.passwords import NONE_YET
from school.people.tables import User, UserSession
from school.profiles.tables import Profile
from school.uploads.tables import Upload

_ERASED = "Erased"


@app.on_erase
def erase_user(person: str, _runs: list[str]) -> int:
    """Files, uploads and profile go; the account stays without a name, an address and a way in, since
    payments refer to it. Returns how many files those were."""
    if not person.isdigit():
        return 0
    user_id = int(person)
    with app.database.session() as session:
        files = app.resources.instance(Files).erase_in(session, f"user:{user_id}")
        for table in (Upload, Profile, UserSession):
            session.execute(delete(table).where(table.user_id == user_id))
        address = f"erased-{user_id}@invalid"
        session.execute(
            update(User)
            .where(User.id == user_id)
            .values(
                full_name=_ERASED, email=address, email_key=address, password_hash=NONE_YET, is_active=False
            )
        )
    return files
