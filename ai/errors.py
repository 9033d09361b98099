"""What can go wrong between a file and a finding; each docstring is the message."""


class AIError(Exception):
    """The image or the model cannot be used."""

    def __init__(self, detail: str = "") -> None:
        message = (self.__doc__ or "").strip().splitlines()[0]
        super().__init__(f"{message} {detail}".strip())


class UndecodablePixels(AIError):
    """The pixel data cannot be decoded; check the sender's transfer syntax."""


class CutPixels(UndecodablePixels):
    """The pixel data end before the last row; check that the sender has the whole image, and send it again."""


class MisplacedValues(UndecodablePixels):
    """High Bit is not Bits Stored - 1, and the values do not fit Bits Stored; check how the sender writes its images."""


class OtherSize(UndecodablePixels):
    """The compressed image has other rows or columns or more bits than its header says; check how the sender writes it."""


class TooManyPixels(UndecodablePixels):
    """The image has more pixels than any mammogram; check its rows, columns and frames."""


class NoBreast(AIError):
    """No breast can be told from the background; check that the image is a mammogram."""

    def __init__(self, image_uid: str = "") -> None:
        super().__init__()
        self.image_uid = image_uid


class NotEnoughMemory(AIError):
    """The memory does not suffice to read the image in any way; check what else uses this machine and its GPU."""


class UnreadableFile(AIError):
    """The file is no DICOM, JPEG or PNG image."""


class ModelError(AIError):
    """The model cannot be used."""


class MissingModel(ModelError):
    """The model directory or its card.toml is missing; check reader.model in the settings."""


class NotInstalled(ModelError):
    """The model was not installed, and nothing was changed."""


class UnreadablePackage(ModelError):
    """The file is neither a model directory nor a ZIP of one."""


class ModelExists(ModelError):
    """There is another or a damaged model of this name, and nothing is overwritten; remove it, or rename one of them."""


class InvalidCard(ModelError):
    """The model's card.toml is not valid."""


class MissingWeights(ModelError):
    """A weights file that the model's card names is missing; install the model again."""


class WrongDigest(ModelError):
    """A weights file differs from the digest in the model's card; install the model again."""


class NoSuchDevice(ModelError):
    """The device is not there; set reader.device to "auto" or "cpu", or check the GPU's driver."""


class RuntimeMissing(ModelError):
    """The runtime is not to be had; set reader.runtime to "torch", or reader.device to "cpu" and install the extra."""


class UnknownReader(ModelError):
    """The model's card names a reader that this version does not have."""


class UnknownArchitecture(ModelError):
    """The network's name or one of its options is not known to this version."""


class UnusableWeights(ModelError):
    """The file cannot start this network; check its path, its SHA-256 and which network it was made for."""


class InvalidDataset(AIError):
    """The data set cannot be used."""


class ForeignCheckpoint(AIError):
    """The folder holds the checkpoint of another plan or of other images; give another output folder."""


class RunInProgress(AIError):
    """Another run trains into this folder; wait for its end, or give another output folder."""


class Diverged(AIError):
    """The loss is not finite any more; lower the learning rate."""


class InvalidRecipe(AIError):
    """The recipe cannot be followed; correct what is named."""


class DamagedCheckpoint(AIError):
    """The checkpoint cannot be read; delete it and the run begins anew, or restore it from a copy."""


class InvalidHistory(AIError):
    """The history of a training run is not there or was changed by hand; train again."""


class LeakingSplit(InvalidDataset):
    """A patient is in two parts of the split; put all images of a patient into one part."""


class DuplicateImages(InvalidDataset):
    """Patients of different parts share a picture; remove one of the images, or give both patients one patient_id."""


class UnfitFolds(InvalidDataset):
    """The folds in the file do not fit; correct what is named, or write them anew with mammonode folds."""


class Unwritable(AIError):
    """The place cannot be written to; check that it is there, who may write to it, and the space on its disk."""


class MissingExtra(AIError):
    """A package that comes with the extra `train` is missing; type: pip install 'mammonode[train]'."""
