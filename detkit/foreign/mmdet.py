"""mmdetection's Faster R-CNN with FPN (2.x and 3.x), and the backbones of its family.

Its nets of style `caffe` are fed and strided as detectron2's are; the file's meta data say so. Its box coder also
limits how far a box shrinks, to 1/62.5: detkit does not, and no trained net goes there.
"""

from detkit.foreign.names import HEAD, Library, Rule

_BACKBONE: tuple[Rule, ...] = ((r"(?:backbone\.)?((?:conv|bn|layer|stem|downsample).+)", r"\1"),)

_DETECTOR: tuple[Rule, ...] = (
    (r"backbone\.(.+)", r"backbone.\1"),
    (r"neck\.lateral_convs\.(\d+)\.conv\.(\w+)", r"neck.lateral.\1.0.\2"),
    (r"neck\.fpn_convs\.(\d+)\.conv\.(\w+)", r"neck.output.\1.0.\2"),
    (r"neck\.lateral_convs\.(\d+)\.bn\.(\w+)", r"neck.lateral.\1.1.\2"),
    (r"neck\.fpn_convs\.(\d+)\.bn\.(\w+)", r"neck.output.\1.1.\2"),
    (r"rpn_head\.rpn_conv\.(weight|bias)", r"rpn.head.convs.0.\1"),
    (r"rpn_head\.rpn_conv\.(\d+)\.conv\.(weight|bias)", r"rpn.head.convs.\1.\2"),
    (r"rpn_head\.rpn_cls\.(weight|bias)", r"rpn.head.objectness.\1"),
    (r"rpn_head\.rpn_reg\.(weight|bias)", r"rpn.head.deltas.\1"),
    (r"roi_head\.bbox_head\.shared_convs\.(\d+)\.conv\.(\w+)", rf"{HEAD}.conv.\1.0.\2"),
    (r"roi_head\.bbox_head\.shared_convs\.(\d+)\.bn\.(\w+)", rf"{HEAD}.conv.\1.1.\2"),
    (r"roi_head\.bbox_head\.shared_fcs\.(\d+)\.(weight|bias)", rf"{HEAD}.linear.\1.\2"),
    (r"roi_head\.bbox_head\.fc_cls\.(weight|bias)", rf"{HEAD}.scores.\1"),
    (r"roi_head\.bbox_head\.fc_reg\.(weight|bias)", rf"{HEAD}.deltas.\1"),
)

LIBRARY = Library(
    _DETECTOR,
    _BACKBONE,
    model={"rpn.sigmoid": "first", "roi_head.aligned": True, "roi_head.sampling_ratio": 0},
    data={"resize": "opencv"},
)


def classes_of(meta: object) -> list[str] | None:
    """The class names that a checkpoint's `meta` holds: CLASSES (2.x), or dataset_meta with classes (3.x)."""
    if not isinstance(meta, dict):
        return None
    inner = meta.get("dataset_meta")
    sources = (meta, inner if isinstance(inner, dict) else {})
    for names in (source.get(key) for source in sources for key in ("classes", "CLASSES")):
        if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
            return list(names)
    return None


def is_caffe(meta: object) -> bool:
    """Whether the config text in a checkpoint's `meta` describes a net of style caffe."""
    text = str(meta.get("config") or meta.get("cfg")) if isinstance(meta, dict) else ""
    return "style='caffe'" in text or 'style="caffe"' in text
