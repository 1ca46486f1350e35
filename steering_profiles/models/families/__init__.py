"""Supported architecture families, one file each. To add a family, write its file and list it here."""

from steering_profiles.models.anatomy import Family
from steering_profiles.models.families.falcon import FALCON, FALCON_RW
from steering_profiles.models.families.gemma import GEMMA
from steering_profiles.models.families.gemma2 import GEMMA2
from steering_profiles.models.families.gemma3 import GEMMA3, GEMMA3_WITH_VISION
from steering_profiles.models.families.gpt2 import GPT2
from steering_profiles.models.families.gpt_neox import GPT_NEOX
from steering_profiles.models.families.gptj import GPTJ
from steering_profiles.models.families.granite import GRANITE
from steering_profiles.models.families.llama import LLAMA
from steering_profiles.models.families.mistral import MISTRAL
from steering_profiles.models.families.mixtral import MIXTRAL
from steering_profiles.models.families.olmo import OLMO
from steering_profiles.models.families.olmo2 import OLMO2
from steering_profiles.models.families.olmo3 import OLMO3
from steering_profiles.models.families.opt import OPT, OPT_POST_NORM
from steering_profiles.models.families.phi import PHI
from steering_profiles.models.families.phi3 import PHI3
from steering_profiles.models.families.qwen2 import QWEN2
from steering_profiles.models.families.qwen3 import QWEN3
from steering_profiles.models.families.qwen3_moe import QWEN3_MOE
from steering_profiles.models.families.smollm3 import SMOLLM3
from steering_profiles.models.families.stablelm import STABLELM
from steering_profiles.models.families.starcoder2 import STARCODER2

FAMILIES: tuple[Family, ...] = (
    GPT2,
    OPT,
    OPT_POST_NORM,
    GPT_NEOX,
    GPTJ,
    FALCON,
    FALCON_RW,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA,
    GEMMA2,
    GEMMA3,
    GEMMA3_WITH_VISION,
    PHI,
    PHI3,
    STABLELM,
    STARCODER2,
    OLMO,
    OLMO2,
    OLMO3,
    SMOLLM3,
    GRANITE,
    MIXTRAL,
    QWEN3_MOE,
)
