//! Positions in the manifest's text, and the one line that a problem shows, with secrets blanked out.

use super::redact;
use std::ops::Range;

/// The longest excerpt, in characters; longer lines are cut around the carets.
const EXCERPT_LIMIT_CHARS: usize = 160;

/// The longest line, in bytes, of which anything is shown: looking for secrets in it takes time.
const LINE_LIMIT_BYTES: usize = 2000;

/// One line of the manifest as it may be printed: no secrets, no control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) line: String,
    /// Where the carets start, in characters of `line`.
    pub(super) caret_start: usize,
    /// How many carets, at least one.
    pub(super) caret_count: usize,
}

/// The manifest's text with what is needed to point into it.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    is_ascii: bool,
    line_starts: Vec<usize>,
    redacted: Vec<Range<usize>>,
    /// The text is no TOML, so nobody knows where a value begins or ends.
    is_broken: bool,
}

impl<'a> Source<'a> {
    /// `redacted` are the byte ranges that must never be printed.
    pub(super) fn new(text: &'a str, redacted: Vec<Range<usize>>, is_broken: bool) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { text, is_ascii: text.is_ascii(), line_starts, redacted, is_broken }
    }

    /// Line and column (in characters) of a byte offset; both start at 1.
    pub(super) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        // One line may hold very many problems; counting its characters again for each would take long.
        let characters =
            if self.is_ascii { offset - start } else { self.text[start..offset].chars().count() };
        (line, characters + 1)
    }

    /// The line in which `span` starts, ready to print.
    pub(super) fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let (line, _) = self.position(span.start);
        let start = self.line_starts[line - 1];
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        let raw = self.text[start..end].trim_end_matches('\r');
        let line_span = start..start + raw.len();
        if raw.len() > LINE_LIMIT_BYTES {
            return Excerpt { line: "…".into(), caret_start: 0, caret_count: 1 };
        }
        let is_in_line = |range: &&Range<usize>| range.start < line_span.end && range.end > line_span.start;
        let mut hidden: Vec<_> = self.redacted.iter().filter(is_in_line).cloned().collect();
        let in_line = |range: Range<usize>| range.start + start..range.end + start;
        hidden.extend(redact::in_line(raw).into_iter().map(in_line));
        if self.is_broken && redact::is_inside_multiline_string(&self.text[..start]) {
            hidden.push(line_span);
        } else if self.is_broken {
            hidden.extend(redact::in_broken_line(raw).map(in_line));
        }
        draw(raw, start, span, &hidden)
    }

    /// The nearest character boundary at or before `offset`.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }
}

/// Copies `raw` (which starts at byte `start`) without what is hidden, and finds where `span` is in the copy.
fn draw(raw: &str, start: usize, span: &Range<usize>, hidden: &[Range<usize>]) -> Excerpt {
    let mut line: Vec<char> = Vec::with_capacity(raw.len());
    let (mut caret_start, mut caret_end) = (None, 0);
    let mut in_hidden = false;
    for (at, c) in raw.char_indices().map(|(at, c)| (at + start, c)) {
        let is_hidden = hidden.iter().any(|range| range.contains(&at));
        let from = if is_hidden && in_hidden { line.len() - 1 } else { line.len() };
        match c {
            _ if is_hidden && in_hidden => {}
            _ if is_hidden => line.push('…'),
            '\t' => line.extend([' '; 4]),
            c if is_printable(c) => line.push(c),
            _ => line.push('\u{fffd}'),
        }
        in_hidden = is_hidden;
        if at >= span.start {
            caret_start.get_or_insert(from);
        }
        if at < span.end {
            caret_end = line.len();
        }
    }
    let caret_start = caret_start.unwrap_or(line.len());
    let caret_count = caret_end.saturating_sub(caret_start).max(1);
    cut(&line, caret_start, caret_count)
}

/// Cuts a long line around its carets.
fn cut(line: &[char], caret_start: usize, caret_count: usize) -> Excerpt {
    if line.len() <= EXCERPT_LIMIT_CHARS {
        return Excerpt { line: line.iter().collect(), caret_start, caret_count };
    }
    let from = caret_start.saturating_sub(EXCERPT_LIMIT_CHARS / 2);
    let to = (from + EXCERPT_LIMIT_CHARS).min(line.len());
    let (before, after) = (if from > 0 { "…" } else { "" }, if to < line.len() { "…" } else { "" });
    let text = format!("{before}{}{after}", line[from..to].iter().collect::<String>());
    let caret_start = caret_start - from + before.chars().count();
    let room = text.chars().count().saturating_sub(caret_start).max(1);
    Excerpt { line: text, caret_start, caret_count: caret_count.min(room) }
}

/// Characters that neither move the cursor nor change the direction of what follows.
pub(super) fn is_printable(c: char) -> bool {
    let changes_direction =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    !(c.is_control() || changes_direction || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, span: Range<usize>, hidden: Vec<Range<usize>>) -> (String, usize, usize) {
        let excerpt = Source::new(text, hidden, false).excerpt(&span);
        (excerpt.line, excerpt.caret_start, excerpt.caret_count)
    }

    fn hidden(start: usize, end: usize) -> Range<usize> {
        start..end
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let source = Source::new("a\nbé\r\nc", Vec::new(), false);
        assert_eq!(source.position(0), (1, 1));
        assert_eq!(source.position(2), (2, 1));
        assert_eq!(source.position(5), (2, 3), "é is two bytes and one character");
        assert_eq!(source.position(4), (2, 2), "inside é");
        assert_eq!(source.position(999), (3, 2));
    }

    #[test]
    fn carets_stand_under_the_span() {
        assert_eq!(shown("x = 1\nab = 22\n", 11..13, vec![]), ("ab = 22".into(), 5, 2));
        assert_eq!(shown("\tab = 2", 1..3, vec![]), ("    ab = 2".into(), 4, 2));
        assert_eq!(shown("ab", 2..2, vec![]), ("ab".into(), 2, 1), "at the end of the text");
        assert_eq!(shown("ab = [\n1,\n2]", 5..12, vec![]), ("ab = [".into(), 5, 1), "only the first line");
    }

    #[test]
    fn hidden_bytes_become_one_ellipsis() {
        assert_eq!(shown("k = \"abcdef\" # x", 4..12, vec![hidden(5, 11)]), ("k = \"…\" # x".into(), 4, 3));
        assert_eq!(shown("k = abcdef", 6..8, vec![hidden(4, 10)]), ("k = …".into(), 4, 1));
    }

    #[test]
    fn control_and_direction_characters_are_not_printed() {
        assert_eq!(shown("a\u{1b}[31m\u{202e}b", 0..1, vec![]).0, "a\u{fffd}[31m\u{fffd}b");
    }

    #[test]
    fn a_long_line_is_cut_around_its_carets() {
        let text = format!("{}HERE{}", "a".repeat(1000), "b".repeat(900));
        let (line, start, count) = shown(&text, 1000..1004, vec![]);
        assert_eq!(line.chars().skip(start).take(count).collect::<String>(), "HERE");
        assert!(line.chars().count() <= EXCERPT_LIMIT_CHARS + 2);
        assert_eq!(shown(&text.repeat(2), 1000..1004, vec![]), ("…".into(), 0, 1));
    }
}
