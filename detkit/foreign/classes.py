"""Names and ids of the classes of a detector whose file does not tell."""

from collections.abc import Sequence

from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights


def coco_names() -> dict[int, str]:
    """The names of COCO's 80 categories by their ids, which lie in 1..90."""
    names = FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return {number: name for number, name in enumerate(names) if number > 0 and name != "N/A"}


def classes_and_ids(count: int, names: Sequence[str] | None) -> tuple[list[str], list[int | None]]:
    """Names and category ids for `count` classes without background; `names` where they are known.

    80 and 90 classes are COCO's. Of the 90 outputs that some nets have, one for each id, ten belong to ids that COCO
    gave up; they share the softmax with the others, so they stay, as `N/A 12` and the like, without an id. Names that
    are COCO's 80 get COCO's ids. Raises ValueError where the number of names differs, or they repeat.
    """
    coco = coco_names()
    if names is not None:
        if len(names) != count:
            raise ValueError(f"expected {count} class names (without background), got {len(names)}")
        repeated = sorted({name for name in names if list(names).count(name) > 1})
        if repeated:
            raise ValueError(f"class names must differ from each other; repeated: {', '.join(repeated)}")
        ids: list[int | None] = list(coco) if list(names) == list(coco.values()) else list(range(1, count + 1))
        return list(names), ids
    if count == len(coco):
        return list(coco.values()), list(coco)
    if count == max(coco):
        outputs = range(1, count + 1)
        ids_of_outputs = [number if number in coco else None for number in outputs]
        return [coco.get(number, f"N/A {number}") for number in outputs], ids_of_outputs
    return [f"class_{number}" for number in range(1, count + 1)], list(range(1, count + 1))
