"""How the kernel writes names into lists of what is mounted, see proc(5). Standard library only."""


def unescaped(name: bytes) -> bytes:
    """Blanks and their like, and backslashes, stand there as a backslash and three octal digits."""
    first, *others = name.split(b"\\")
    return first + b"".join(bytes([int(other[:3], 8)]) + other[3:] for other in others)
