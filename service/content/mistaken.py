"""Files that stand where others should: what people find in the place of an image, a text or a table."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
FRAMES = b"shortlist frames\n"  # by which frames begin that were read as one video
_PAGE = (b"<!doctype html", b"<html")
HEAD_BYTES = 512  # that tell


def mistaken(head: bytes) -> str | None:
    """The noun and the remedy, for "it is …"; None where the first bytes are neither of these."""
    if head.startswith(LFS_POINTER):
        return "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"
    if head.startswith(FRAMES):
        return "a folder of numbered pictures, which is one video: name each picture, or make a project of videos"
    if head[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_PAGE):
        return "a saved web page (HTML), not the file itself: download it again, by its own link or after a login"
    return None
