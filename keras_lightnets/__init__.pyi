from ._version import __version__ as __version__
from .classifier import logits_model as logits_model
from .convert import load_state_dict as load_state_dict
from .folding import fold_batch_norm as fold_batch_norm
from .layers.channel_shuffle import ChannelShuffle as ChannelShuffle
from .layers.channel_split import ChannelSplit as ChannelSplit
from .layers.fused_batch_normalization import (
    FusedBatchNormalization as FusedBatchNormalization,
)
from .layers.grouped_conv2d import GroupedConv2D as GroupedConv2D
from .mobilenet_v1 import MobileNetV1 as MobileNetV1
from .mobilenet_v2 import MobileNetV2 as MobileNetV2
from .options import NetworkOptions as NetworkOptions
from .registry import create_model as create_model
from .registry import list_models as list_models
from .registry import model_info as model_info
from .serving.export import ExportOptions as ExportOptions
from .serving.export import export_saved_model as export_saved_model
from .serving.inference import inference_function as inference_function
from .shufflenet_v1 import ShuffleNetV1 as ShuffleNetV1
from .shufflenet_v2 import ShuffleNetV2 as ShuffleNetV2
from .squeezenet import SqueezeNet as SqueezeNet
from .weights import decode_predictions as decode_predictions
from .weights import preprocess_input as preprocess_input
