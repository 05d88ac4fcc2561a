"""Layers that Keras lacks or runs too slowly; each also works in anybody's model."""

from keras_lightnets.layers.activation import Activation
from keras_lightnets.layers.channel_shuffle import ChannelShuffle
from keras_lightnets.layers.channel_split import ChannelSplit, ConcatShuffleSplit
from keras_lightnets.layers.depthwise_conv2d import DepthwiseConv2D
from keras_lightnets.layers.fake_quantization import FakeQuantize
from keras_lightnets.layers.fused_batch_normalization import FusedBatchNormalization
from keras_lightnets.layers.grouped_conv2d import GroupedConv2D, grouped_conv_form
from keras_lightnets.layers.notes import Notes
from keras_lightnets.layers.recomputation import recompute_activations

__all__ = [
    "Activation",
    "ChannelShuffle",
    "ChannelSplit",
    "ConcatShuffleSplit",
    "DepthwiseConv2D",
    "FakeQuantize",
    "FusedBatchNormalization",
    "GroupedConv2D",
    "Notes",
    "grouped_conv_form",
    "recompute_activations",
]
