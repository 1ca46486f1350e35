"""Whether a text so far is inside a fenced code block of Markdown, byte by byte."""

from dataclasses import dataclass, replace

_BACKTICK, _TILDE, _NEWLINE, _SPACE = (ord(character) for character in "`~\n ")
_LEAST_FENCE = 3
_MOST_INDENT = 3


@dataclass(frozen=True)
class CodeBlockState:
    """What has been read: the open fence if there is one, and how the current line begins.

    A fence is a line that begins, after at most three spaces, with three or more backticks or tildes (CommonMark). One
    of backticks that opens a block has no further backtick. One that closes it has the same character at least as
    often and nothing but spaces after it.
    """

    fence: int = 0
    """Character of the open fence; 0 outside of a block."""
    length: int = 0
    """Length of the open fence."""
    indent: int = 0
    run_of: int = 0
    """The fence character that the line begins with, 0 before any and -1 for another beginning."""
    run: int = 0
    is_pure: bool = True
    """Whether nothing but spaces follows the run."""
    is_broken: bool = False
    """Whether a backtick follows the run, so that it opens no block."""

    @property
    def is_inside(self) -> bool:
        """Whether the text is inside a block; a line that closes it, as far as it goes, is not."""
        return bool(self.fence) and not self._closes

    @property
    def _closes(self) -> bool:
        return self.run_of == self.fence and self.run >= self.length and self.is_pure

    def read(self, text: bytes) -> "CodeBlockState":
        """Return the state after ``text``."""
        state = self
        for byte in text:
            state = state._after(byte)
        return state

    def _after(self, byte: int) -> "CodeBlockState":
        if byte == _NEWLINE:
            return self._after_line()
        if self.run_of == -1:
            return self
        if self.run_of == 0:
            if byte == _SPACE and self.indent < _MOST_INDENT:
                return replace(self, indent=self.indent + 1)
            fences = byte in (_BACKTICK, _TILDE)
            return replace(self, run_of=byte if fences else -1, run=int(fences))
        if byte == self.run_of and self.is_pure and not self._has_ended:
            return replace(self, run=self.run + 1)
        return self._after_run(byte)

    @property
    def _has_ended(self) -> bool:
        return self.indent < 0

    def _after_run(self, byte: int) -> "CodeBlockState":
        broken = self.is_broken or (self.run_of == _BACKTICK and byte == _BACKTICK)
        # A negative indent says that the run has ended.
        return replace(self, indent=-1, is_pure=self.is_pure and byte == _SPACE, is_broken=broken)

    def _after_line(self) -> "CodeBlockState":
        if self.fence:
            return CodeBlockState() if self._closes else CodeBlockState(self.fence, self.length)
        opens = self.run_of > 0 and self.run >= _LEAST_FENCE and not self.is_broken
        return CodeBlockState(self.run_of, self.run) if opens else CodeBlockState()
