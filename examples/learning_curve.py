"""Show a project's learning curve in the terminal: SHORTLIST_KEY=… python examples/learning_curve.py [project]"""

import sys

from shortlist_client import CurvePoint, Shortlist

WIDTH = 50  # characters from accuracy 0 to 1


def bar(point: CurvePoint) -> str:
    """`━` up to the accuracy, `┄` over its 95 % interval."""
    low, high = point.accuracy_low, point.accuracy_high
    at, begins, ends = (round(WIDTH * (value or 0)) for value in (point.accuracy, low, high))
    return "".join("━" if x <= at and x < max(begins, at) else "┄" if x < ends else " " for x in range(WIDTH))


def main() -> None:
    with Shortlist() as client:
        project = client.project(sys.argv[1] if len(sys.argv) > 1 else None)
        points = project.curve()
        print(f"{project.name}: {project.metrics().labels_used} labels, {len(points)} measured rounds")
        for point in points:
            print(f"{point.labels_used:6} {bar(point)} {100 * (point.accuracy or 0):5.1f} %")
        if not points:
            print("There is nothing to show before the first round is measured.")


if __name__ == "__main__":
    main()
