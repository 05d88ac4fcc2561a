from .decode import MAX_PIXELS as MAX_PIXELS
from .decode import decode_image as decode_image
from .eval_transform import IMAGENET_MEAN as IMAGENET_MEAN
from .eval_transform import IMAGENET_STD as IMAGENET_STD
from .eval_transform import EvalTransform as EvalTransform
from .transform import evaluation_image as evaluation_image
from .transform import transform_image as transform_image
