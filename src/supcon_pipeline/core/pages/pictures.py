"""The pictures of the report."""

from typing import NamedTuple


class Picture(NamedTuple):
    """The words of a picture.

    Args:
        title: of its part of the page.
        text: what it shows, for those who do not see it.
    """

    title: str
    text: str


# Empty where test has classes that train lacks.
OF_KNOWN_CLASSES = ("confusion_matrix", "calibration_curves", "learning_curve_figure")
# By the name of the artifact, in the order of the page; `visualization` hands the report what is listed here.
PICTURES = {
    "embedding_map": Picture(
        "t-SNE of the embeddings",
        "Scatter plots of the images by t-SNE, contrastive encoder beside baseline, a row per split",
    ),
    "retrieval_gallery": Picture(
        "Nearest images",
        "Test images with the nearest images found, framed blue where the label agrees, else vermillion",
    ),
    "confusion_matrix": Picture(
        "Confusion of the classifier",
        "Matrix of label against prediction, coloured by the share of the label's images",
    ),
    "calibration_curves": Picture(
        "Calibration",
        "Accuracy against confidence, before and after temperature scaling",
    ),
    "verification_curve": Picture(
        "Are two images of one class?",
        "Share of the matches that are missed against the share of false matches, with the chosen threshold",
    ),
    "learning_curve_figure": Picture(
        "Does more labelling help?",
        "Accuracy of k-NN, class centres and logistic regression on test images by labelled images per class",
    ),
    "suspicious_gallery": Picture(
        "Labels to check",
        "The images whose neighbours disagree most with their label",
    ),
    "near_duplicate_gallery": Picture(
        "Near-duplicates",
        "Pairs of images that show one photograph, those in two splits first",
    ),
    "training_curves": Picture(
        "Training curves",
        "Loss, learning rate and validation metrics of each training by epoch",
    ),
    "stage1_lr_figure": Picture(
        "Learning-rate range test of stage 1",
        "Loss of stage 1 against a rising learning rate, with the suggested rate",
    ),
    "stage2_lr_figure": Picture(
        "Learning-rate range test of stage 2",
        "Loss of stage 2 against a rising learning rate, with the suggested rate",
    ),
    "views_figure": Picture(
        "Views",
        "Training images, each with the views that stage 1 compares",
    ),
}
