"""Define the methods for rare classes: their names, and how often each learns from which images."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError

MOST_SAMPLES = 200  # of a class, for `few`
NEIGHBOURS = 5  # that SMOTE chooses among
NOTHING = "nothing"
EXCLUSIVE = ({"oversample", "weights", "adjust", "smote"}, {"smote", "sampled"})
MODIFIERS = ("filtered", "few", "all", "halved")


class Method(NamedTuple):
    """A method that helps a classifier to learn rare classes; each field is a word of its name.

    oversample: all classes are equally frequent in a batch. weights: the loss is weighted by the inverse class
    frequency. adjust: the log class frequency is added to the logits (Menon et al., arXiv:2007.07314, tau 1). smote:
    images between two neighbours fill classes up to the most frequent (arXiv:1106.1813). augment: all images are
    rotated, scaled and bent. mixup: all images are mixed in pairs (arXiv:1710.09412). sampled: samples of a generator
    join the real images of rare classes. filtered: only samples that a classifier assigns to their class. few: at most
    MOST_SAMPLES of a class. all: samples of all classes, not only of rare ones. halved: a class with samples learns
    half from real images and half from samples; otherwise all its images are equally likely.
    """

    oversample: bool = False
    weights: bool = False
    adjust: bool = False
    smote: bool = False
    augment: bool = False
    mixup: bool = False
    sampled: bool = False
    filtered: bool = False
    few: bool = False
    all: bool = False
    halved: bool = False

    def __str__(self) -> str:
        return "+".join(word for word, said in self._asdict().items() if said) or NOTHING

    @classmethod
    def parse(cls, text: str) -> "Method":
        """Parse a name: words joined by +, in any order, or `nothing`.

        Raises:
            ValueError: a word is unknown, repeated, excludes another, or needs `sampled`.
        """
        words = [] if text == NOTHING else text.split("+")
        for word in words:
            if word not in cls._fields:
                known = f"{NOTHING}, or some of {', '.join(cls._fields)}, joined by +"
                raise ValueError(f"{text}: unknown word {word!r}; a method is {known}")
            if words.count(word) > 1:
                raise ValueError(f"{text}: {word} is repeated; name it once")
            if word in MODIFIERS and "sampled" not in words:
                raise ValueError(f"{text}: {word} needs sampled; add it")
        for each in EXCLUSIVE:
            if len(both := [word for word in words if word in each]) > 1:
                raise ValueError(f"{text}: {both[0]} and {both[1]} exclude each other; leave one out")
        return cls(**dict.fromkeys(words, True))


def _real_alone(name: str) -> str:
    if Method.parse(name).sampled:
        raise ValueError("learns from samples, which do not exist yet; name a method without sampled")
    return name


MethodName = Annotated[str, AfterValidator(lambda text: str(Method.parse(text)))]
RealMethodName = Annotated[MethodName, AfterValidator(_real_alone)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Sampled(NamedTuple):
    """Samples of a generator, uint8 (N, C, H, W), and their labels (N,).

    taken: whether the filter's classifier assigns a sample to its class, booleans (N,).
    """

    images: Tensor
    labels: Tensor
    taken: Tensor

    def chosen(self, method: Method, rare: Sequence[int]) -> Split:
        """Return the samples that join the real images in this method."""
        joins = torch.isin(self.labels, torch.tensor([*rare])) | method.all
        if method.filtered:
            joins &= self.taken
        if method.few:
            for label in self.labels[joins].unique():
                joins[(joins & (self.labels == label)).nonzero()[MOST_SAMPLES:]] = False
        return Split(self.images, self.labels).take(joins)

    def shown(self, label: int) -> Tensor:
        """Return the samples of a class that are taken, or all if none is."""
        taken = (self.labels == label) & self.taken
        return self.images[taken if taken.any() else self.labels == label]


def shares(
    train: Split, sampled: Sampled | None, rare: Sequence[int], method: Method, seed: int
) -> tuple[Split, Tensor]:
    """Return the images that a method learns from, real ones first, and the probability of each, (N,), float64.

    Raises:
        UserError: a class has too few images for SMOTE; or imbalanced-learn is not installed.
        ValueError: the method needs samples, and there are none.
    """
    real = smote(train, seed) if method.smote else train
    if method.sampled and sampled is None:
        raise ValueError(f"{method}: no images were sampled")
    joined = sampled.chosen(method, rare) if method.sampled and sampled else real.take(slice(0))
    pool = Split(torch.cat([real.images, joined.images]), torch.cat([real.labels, joined.labels]))
    of_class = pool.labels.bincount()[pool.labels]
    share = torch.ones(len(pool.labels), dtype=torch.float64)
    if method.halved:
        kind = 2 * pool.labels + (torch.arange(len(share)) >= len(real.labels))
        of_kind = kind.bincount()[kind]
        share = torch.where(of_kind < of_class, of_class / (2 * of_kind.double()), share)
    if method.oversample:
        share /= of_class
    return pool, share / share.sum()


def smote(train: Split, seed: int) -> Split:
    """Add images between two neighbours of a class until all classes are as large as the most frequent one.

    Raises:
        UserError: a class has only one image; or imbalanced-learn is not installed.
    """
    try:
        from imblearn.over_sampling import SMOTE  # heavy, and no other method needs it
    except ImportError:
        raise UserError("smote: needs imbalanced-learn; `pip install -e '.[rare]'` installs it") from None

    labels, counts = train.labels.unique(return_counts=True)
    least, label = int(counts.min()), int(labels[counts.argmin()])
    if least == 1:
        raise UserError(f"smote: label {label} has one image, but SMOTE needs two; leave smote out")
    if least == counts.max():
        return train
    chance = int(torch.randint(2**31, (), generator=generator(seed, "smote")))
    found, found_labels = SMOTE(random_state=chance, k_neighbors=min(NEIGHBOURS, least - 1)).fit_resample(
        train.images.flatten(1).float().numpy(), train.labels.numpy()
    )
    images = torch.from_numpy(found).round().to(torch.uint8).view(-1, *train.images.shape[1:])
    return Split(images, torch.from_numpy(found_labels))
