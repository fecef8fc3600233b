from rich.console import Console

from ocrnet_pl.drawing.results_table import results_tables


def test_names_of_classes_are_printed_as_they_are() -> None:
    names = ["[/]", "[red]x[/red]", "cat"]
    console = Console(width=120, record=True)
    for table in results_tables({f"val/iou_per_class/{name}": 0.5 for name in names}, "val"):
        console.print(table)
    text = console.export_text()
    assert all(f"│ {name} " in text for name in names)
