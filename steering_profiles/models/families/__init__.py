"""The architecture families that steering knows, one file each. Adding one: write its file, list it here."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.families.gpt2 import GPT2
from steering_profiles.models.families.llama import LLAMA

FAMILIES: tuple[Family, ...] = (GPT2, LLAMA)
