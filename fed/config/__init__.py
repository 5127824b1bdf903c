"""The options of a job: `fed.config.model` says what they may be, `fed.config.sources` where they may be given."""

from fed.config.codecs import DeclaredType, TypeCodec, codec, declared_name
from fed.config.model import COMMON_RESOURCES, PARTY_NAME, Address, Config, TLSConfig, check_party_name
from fed.config.sources import DEFAULT_JOB_VARIABLE, LOG_DIR_VARIABLE, gather, load

__all__ = [
    "COMMON_RESOURCES",
    "DEFAULT_JOB_VARIABLE",
    "LOG_DIR_VARIABLE",
    "PARTY_NAME",
    "Address",
    "Config",
    "DeclaredType",
    "TLSConfig",
    "TypeCodec",
    "check_party_name",
    "codec",
    "declared_name",
    "gather",
    "load",
]
