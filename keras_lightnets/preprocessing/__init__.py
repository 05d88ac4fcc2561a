"""From the bytes of an image file to the pixels that a network sees."""

from keras_lightnets.preprocessing.decode import MAX_PIXELS as MAX_PIXELS
from keras_lightnets.preprocessing.decode import decode_image as decode_image
from keras_lightnets.preprocessing.transform import IMAGENET_MEAN as IMAGENET_MEAN
from keras_lightnets.preprocessing.transform import IMAGENET_STD as IMAGENET_STD
from keras_lightnets.preprocessing.transform import EvalTransform as EvalTransform
from keras_lightnets.preprocessing.transform import evaluation_image as evaluation_image
from keras_lightnets.preprocessing.transform import transform_image as transform_image
