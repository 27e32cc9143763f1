"""The published COCO recipes."""
