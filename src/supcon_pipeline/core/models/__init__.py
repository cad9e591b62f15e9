"""Networks: backbones, encoders and what is built on them."""
