"""Training of a network: crops or whole images, augmentation, the losses and skorch's loop."""

from ._augmentation import Augmentation as Augmentation
from ._batch import choose_batch_size as choose_batch_size
from ._batch import memory_of as memory_of
from ._batch import scale_learning_rate as scale_learning_rate
from ._callbacks import check_callbacks as check_callbacks
from ._callbacks import numbers_of as numbers_of
from ._checkpoint import Checkpoint as Checkpoint
from ._checkpoint import checksum_of as checksum_of
from ._checkpoint import fingerprint as fingerprint
from ._distributed import make_accelerator as make_accelerator
from ._distributed import share_seed as share_seed
from ._magnification import STANDARD_DIAMETER as STANDARD_DIAMETER
from ._magnification import measure_diameter as measure_diameter
from ._magnification import scale_to_diameter as scale_to_diameter
from ._split import check_groups as check_groups
from ._split import split_images as split_images
from ._tasks import CountingTask as CountingTask
from ._tasks import SegmentationTask as SegmentationTask
from ._tasks import TrainingData as TrainingData
from ._train import TrainingResult as TrainingResult
from ._train import TrainingSettings as TrainingSettings
from ._train import train_network as train_network
