from ._version import __version__ as __version__
from .catalogue.registry import list_models as list_models
from .catalogue.registry import model_info as model_info
from .export.saved_model import ExportOptions as ExportOptions
from .export.saved_model import export_saved_model as export_saved_model
from .inference.folding import fold_batch_norm as fold_batch_norm
from .inference.function import inference_function as inference_function
from .inference.plain import plain_keras as plain_keras
from .layers.channel_shuffle import ChannelShuffle as ChannelShuffle
from .layers.channel_split import ChannelSplit as ChannelSplit
from .layers.fused_batch_normalization import (
    FusedBatchNormalization as FusedBatchNormalization,
)
from .layers.grouped_conv2d import GroupedConv2D as GroupedConv2D
from .networks.classifier import logits_model as logits_model
from .networks.create import create_model as create_model
from .networks.mobilenet_v1 import MobileNetV1 as MobileNetV1
from .networks.mobilenet_v2 import MobileNetV2 as MobileNetV2
from .networks.options import NetworkOptions as NetworkOptions
from .networks.shufflenet_v1 import ShuffleNetV1 as ShuffleNetV1
from .networks.shufflenet_v2 import ShuffleNetV2 as ShuffleNetV2
from .networks.squeezenet import SqueezeNet as SqueezeNet
from .quantization.aware import quantize_aware as quantize_aware
from .weights.convert import load_state_dict as load_state_dict
from .weights.load import decode_predictions as decode_predictions
from .weights.load import preprocess_input as preprocess_input
