"""Networks that Lightning trains, for certificates: as features that saw no label, and as a procedure that is repeated.

The only room of the certificates that knows Lightning, so that nothing else of them imports it.
"""

from lightning_poison.certificates.networks.lightning_training import LightningTraining
from lightning_poison.certificates.networks.transfer_features import TransferFeatures

__all__ = ["LightningTraining", "TransferFeatures"]
