"""What the code did at commit 23285fa, kept as fixtures in `before/`: newer code must still do it.

SHORTLIST_WRITE_FIXTURES=1 makes the tests write what they would compare with. It is for the commit that is pinned:
a fixture that newer code wrote says nothing.
"""
