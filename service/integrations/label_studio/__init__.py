"""Label Studio, by score push: its tasks are items here, its annotations labels, and each ranking orders its tasks.

The protocol is that of version 1.23.2 (docs/label-studio.md; docs/decisions/0026-label-studio.md).
"""
