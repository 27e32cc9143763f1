"""The configs that come with detkit; a pip user reaches them by name: `detkit train fpn_r50`."""
