from supcon_pipeline.core.data.packing import Packing

PACKING = Packing(image_size=8, num_channels=3, crop="pad")
