"""Label pictures in the terminal: SHORTLIST_KEY=… python examples/label_in_terminal.py ann"""

import io
import sys

from PIL import Image

from shortlist_client import Shortlist

with Shortlist() as client:
    project = client.project()
    choices = {str(number): name for number, name in enumerate(project.classes, 1)} | {"s": "skip"}
    for item in project.annotate(sys.argv[1]):
        picture = Image.open(io.BytesIO(item.read(size=64))).convert("RGB").resize((48, 48)).tobytes()
        colours = [tuple(picture[at : at + 3]) for at in range(0, len(picture), 3)]
        for top in range(0, len(colours), 96):  # half a block is a pixel: two rows a line
            pairs = zip(colours[top : top + 48], colours[top + 48 : top + 96], strict=True)
            print("".join("\x1b[38;2;{};{};{};48;2;{};{};{}m▀".format(*a, *b) for a, b in pairs) + "\x1b[0m")
        while (said := input(f"{item.key}? {choices} ")) not in choices:
            pass
        item.skip() if said == "s" else item.label(choices[said])
