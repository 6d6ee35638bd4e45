"""Files that stand where others should: what people find in the place of an image, a text or a table."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
FRAMES = b"shortlist frames\n"  # by which frames begin that were read as one video
_PAGE = (b"<!doctype html", b"<html")
_ARCHIVES = {
    b"PK\x03\x04": "ZIP",
    b"\x1f\x8b\x08": "gzip",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
}
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


def archive(head: bytes) -> str | None:
    """The noun and the remedy where the first bytes are those of an archive, which is never unpacked as an item."""
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            return f"an archive or document ({name}): unpack it, or import it as a source, which may be ZIP or tar"
    return None
