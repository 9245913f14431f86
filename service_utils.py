"""The guide's import: `from service_utils import ResilientServiceClient, ServiceUnavailable`."""

from seawall import ResilientServiceClient, ServiceUnavailable

__all__ = ["ResilientServiceClient", "ServiceUnavailable"]
