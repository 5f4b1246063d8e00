"""The arms of a study of rare classes: their names, and from which images each of them learns, how often."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from ddpm.compute.randomness import generator
from ddpm.images.splits import Split
from ddpm.pipeline.console import UserError

FEW = 200  # drawn images of a class, where few are asked for
NEIGHBOURS = 5  # of an image, among which SMOTE chooses
NOTHING = "nothing"
EXCLUSIVE = ({"oversample", "weights", "adjust", "smote"}, {"smote", "drawn"})
MODIFIERS = ("filtered", "few", "all", "halved")


class Arm(NamedTuple):
    """What helps a classifier to learn rare classes; each of these is a word of the arm's name.

    oversample: every class is as often in a batch. weights: the loss is weighted, inversely to how frequent a class is.
    adjust: the logarithm of how frequent a class is is added to its logit (Menon et al., arXiv:2007.07314, tau 1).
    smote: classes are filled up to the most frequent by images between two neighbours (arXiv:1106.1813).
    augment: all images are turned, scaled and bent. mixup: all are mixed in pairs (arXiv:1710.09412).
    drawn: images of a generator join the real ones, of rare classes. filtered: only those that a classifier takes for
    their class. few: at most FEW of a class. all: of all classes, not only rare ones. halved: of a class that has drawn
    images half of what is learned is real, half drawn; else all its images are as likely.
    """

    oversample: bool = False
    weights: bool = False
    adjust: bool = False
    smote: bool = False
    augment: bool = False
    mixup: bool = False
    drawn: bool = False
    filtered: bool = False
    few: bool = False
    all: bool = False
    halved: bool = False

    def __str__(self) -> str:
        return "+".join(word for word, said in self._asdict().items() if said) or NOTHING

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """The arm of this name: words joined by +, in any order, or `nothing`.

        Raises:
            ValueError: a word is unknown, stands there twice, excludes another, or says of drawn images what they are
                where there are none.
        """
        words = [] if text == NOTHING else text.split("+")
        for word in words:
            if word not in cls._fields:
                known = f"{NOTHING}, or some of {', '.join(cls._fields)}, joined by +"
                raise ValueError(f"{text}: there is no word {word!r} here; an arm is {known}")
            if words.count(word) > 1:
                raise ValueError(f"{text}: {word} stands there twice")
            if word in MODIFIERS and "drawn" not in words:
                raise ValueError(f"{text}: {word} needs drawn")
        for each in EXCLUSIVE:
            if len(both := [word for word in words if word in each]) > 1:
                raise ValueError(f"{text}: {both[0]} and {both[1]} exclude each other")
        return cls(**dict.fromkeys(words, True))


def _real_alone(name: str) -> str:
    if Arm.parse(name).drawn:
        raise ValueError("learns from drawn images, of which there are none here; name an arm without drawn")
    return name


ArmName = Annotated[str, AfterValidator(lambda text: str(Arm.parse(text)))]
RealArmName = Annotated[ArmName, AfterValidator(_real_alone)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Drawn(NamedTuple):
    """Images of a generator, uint8 (N, C, H, W), and their labels (N,).

    taken: whether the filter's classifier takes an image for its class, booleans (N,).
    """

    images: Tensor
    labels: Tensor
    taken: Tensor

    def chosen(self, arm: Arm, rare: Sequence[int]) -> Split:
        """Those that join the real ones in this arm."""
        joins = torch.isin(self.labels, torch.tensor([*rare])) | arm.all
        if arm.filtered:
            joins &= self.taken
        if arm.few:
            for label in self.labels[joins].unique():
                joins[(joins & (self.labels == label)).nonzero()[FEW:]] = False
        return Split(self.images, self.labels).take(joins)

    def shown(self, label: int) -> Tensor:
        """The images of a class that are taken, or all where none is."""
        taken = (self.labels == label) & self.taken
        return self.images[taken if taken.any() else self.labels == label]


def shares(train: Split, drawn: Drawn | None, rare: Sequence[int], arm: Arm, seed: int) -> tuple[Split, Tensor]:
    """The images from which an arm learns, and of each the probability with which it is taken, (N,), float64.

    Real images are the first of them.

    Raises:
        UserError: a class has too few images for SMOTE; or imbalanced-learn is not installed.
        ValueError: the arm takes drawn images, and there are none.
    """
    real = smote(train, seed) if arm.smote else train
    if arm.drawn and drawn is None:
        raise ValueError(f"{arm}: no images were drawn")
    joined = drawn.chosen(arm, rare) if arm.drawn and drawn else real.take(slice(0))
    pool = Split(torch.cat([real.images, joined.images]), torch.cat([real.labels, joined.labels]))
    of_class = pool.labels.bincount()[pool.labels]
    share = torch.ones(len(pool.labels), dtype=torch.float64)
    if arm.halved:
        kind = 2 * pool.labels + (torch.arange(len(share)) >= len(real.labels))
        of_kind = kind.bincount()[kind]
        share = torch.where(of_kind < of_class, of_class / (2 * of_kind.double()), share)
    if arm.oversample:
        share /= of_class
    return pool, share / share.sum()


def smote(train: Split, seed: int) -> Split:
    """With images between two neighbours of a class, as many as each class lacks to the most frequent.

    Raises:
        UserError: a class has but one image; or imbalanced-learn is not installed.
    """
    try:
        from imblearn.over_sampling import SMOTE  # heavy, and no other arm needs it
    except ImportError:
        raise UserError("smote: needs imbalanced-learn; `pip install -e '.[rare]'` installs it") from None

    labels, counts = train.labels.unique(return_counts=True)
    least, label = int(counts.min()), int(labels[counts.argmin()])
    if least == 1:
        raise UserError(f"smote: label {label} has one image, and it takes two to find one between; leave smote out")
    if least == counts.max():
        return train
    chance = int(torch.randint(2**31, (), generator=generator(seed, "smote")))
    found, found_labels = SMOTE(random_state=chance, k_neighbors=min(NEIGHBOURS, least - 1)).fit_resample(
        train.images.flatten(1).float().numpy(), train.labels.numpy()
    )
    images = torch.from_numpy(found).round().to(torch.uint8).view(-1, *train.images.shape[1:])
    return Split(images, torch.from_numpy(found_labels))
