"""Profiles by what a user calls them on the command line."""

from pathlib import Path

from steering_profiles.schema import Profile
from steering_profiles.store import Catalogue, is_profile_file, load_profile


def find_profile(profile: str, folder: Path | None) -> Profile:
    """Return the profile of that name, shipped or in ``folder``, or the one in that ``.json`` file.

    Raises:
        ProfileNotFound: there is none.
        ProfileFormatError: it is not a valid profile.
    """
    return load_profile(profile) if is_profile_file(profile) else Catalogue.open(folder)[profile].profile
