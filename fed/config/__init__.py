"""The options of a job: `fed.config.model` says what they may be, `fed.config.sources` where they may be given."""

from fed.config.codecs import DeclaredType, TypeCodec, codec, declared_name
from fed.config.model import (
    COMMON_RESOURCES,
    PARTY_NAME,
    Address,
    Config,
    TLSConfig,
    check_party_name,
    check_ray_address,
)
from fed.config.sources import DEFAULT_JOB_VARIABLE, LOG_DIR_VARIABLE, RAY_ADDRESS_VARIABLE, gather, load
from fed.installation import refuse_others

__all__ = [
    "COMMON_RESOURCES",
    "DEFAULT_JOB_VARIABLE",
    "LOG_DIR_VARIABLE",
    "PARTY_NAME",
    "RAY_ADDRESS_VARIABLE",
    "Address",
    "Config",
    "DeclaredType",
    "TLSConfig",
    "TypeCodec",
    "check_party_name",
    "check_ray_address",
    "codec",
    "declared_name",
    "gather",
    "load",
]

# Here, since whatever was installed last has its own `fed/__init__.py` in place. That of RayFed imports `fed.config`,
# for which Python takes this package and not RayFed's module.
refuse_others()
