"""All that the doctor looks at, in order."""

from collections.abc import Callable, Sequence

from detkit.config import Config
from detkit.doctor.anchors import check_anchors
from detkit.doctor.boxes import check_boxes
from detkit.doctor.categories import check_categories
from detkit.doctor.files import check_files
from detkit.doctor.findings import Findings
from detkit.doctor.pictures import check_pictures
from detkit.doctor.table import Table, read_table
from detkit.formats import Split


def examine_quickly(splits: Sequence[Split], config: Config | None = None) -> tuple[Findings, list[Table]]:
    """What annotations and names of files tell; no picture is opened. `config`: whose anchors the boxes should fit."""
    findings = Findings()
    tables = [check_boxes(read_table(split, findings), findings) for split in splits]
    check_files(tables, findings)
    check_categories(tables, findings)
    if config is not None and tables:
        check_anchors(tables[0], config, findings)
    return findings, tables


def examine(
    splits: Sequence[Split], config: Config | None = None, progress: Callable[[], None] | None = None
) -> tuple[Findings, list[Table]]:
    """Everything: `examine_quickly`, then each picture is decoded; `progress` is called after each of them."""
    findings, tables = examine_quickly(splits, config)
    check_pictures(tables, findings, progress)
    return findings, tables
