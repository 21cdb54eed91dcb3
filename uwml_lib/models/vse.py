"""VSE++: one vector an image, one vector a caption (Faghri et al., BMVC 2018)."""

from torch import Tensor

from uwml_lib.models.encoders import l2_normalise, mean_of_valid
from uwml_lib.models.matcher import WithSCANEncoders


class VSE(WithSCANEncoders):
    """The mean of the regions' features, mapped linearly; a GRU's state after the last word; their cosine.

    The source has one feature an image, of a whole picture; here it is the mean of the regions'.

    Parameters (the source uses): feature_dim (4096), vocabulary_size, embed_size (1024), word_dim (300), bidirectional
    (False), weight_norm (False).
    """

    title = "VSE++"
    varying = True

    def embed_images(self, features: Tensor, counts: Tensor | None = None) -> Tensor:
        """Embed region features (n, regions, feature_dim), float, as (n, embed_size), of length 1."""
        return self.image_encoder(mean_of_valid(features, counts))

    def embed_captions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Embed token ids (n, words), int64, with lengths (n,) on the CPU, as (n, embed_size), of length 1."""
        return l2_normalise(self.caption_encoder.read(tokens, lengths)[1])
