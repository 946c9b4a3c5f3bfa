//! From the bytes of a pipe to lines, however they come in.
//!
//! A line is handed on whole while it is at most 64 KiB long; a longer one in several parts, so that
//! memory stays bounded. A part comes with the bytes around it, because a value that must not be seen
//! may stand across the cut. A word to the engine (`::result …`) may be longer; one that is longer than
//! any word may be is discarded whole.

use std::ops::Range;

use memchr::memchr;

use crate::words;

/// A line that is longer, in bytes, is handed on in parts.
pub const MAX_LINE_BYTES: usize = 64 * 1024;
/// The longest word, in bytes: a result and what stands before it.
pub const MAX_WORD_BYTES: usize = words::MAX_RESULT_BYTES + 64;
/// The longest character, in bytes.
const MAX_CHARACTER_BYTES: usize = 4;

/// What comes out.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// A whole line, without its end.
    Line(&'a [u8]),
    /// A part of a long line.
    Part {
        /// The part with what stands around it.
        text: &'a [u8],
        /// Which bytes of it are the part.
        range: Range<usize>,
        /// Whether the line goes on.
        continues: bool,
    },
    /// A word that was longer than [`MAX_WORD_BYTES`]: its name. The rest of it is gone.
    LongWord(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    LineStart,
    /// In a line of which parts were handed on.
    InLine,
    /// In a word that is discarded.
    InLongWord,
}

/// Takes bytes in and hands lines out.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where what is still needed begins.
    start: usize,
    /// How many bytes from there were handed on already and are kept for what comes after them.
    context: usize,
    /// How many bytes from there hold no line end.
    searched: usize,
    place: Place,
}

impl Default for Lines {
    fn default() -> Self {
        Self { buffer: Vec::new(), start: 0, context: 0, searched: 0, place: Place::LineStart }
    }
}

impl Lines {
    /// Takes bytes in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.start);
        self.start = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line, or part of one, that is there. `longest` is the length of the longest value that
    /// must not be seen; `is_end` says that no more bytes come.
    pub fn next(&mut self, longest: usize, is_end: bool) -> Option<Piece<'_>> {
        loop {
            let data = &self.buffer[self.start..];
            let line_end = memchr(b'\n', &data[self.searched..]).map(|at| self.searched + at);
            let end = line_end.unwrap_or(data.len());
            let is_whole = line_end.is_some() || is_end;
            if self.place == Place::InLongWord {
                self.skip(end, line_end.is_some());
                line_end?;
                continue;
            }
            let fresh = end - self.context;
            let word = if self.place == Place::LineStart { words::name(&data[..end]) } else { None };
            let limit = if word.is_some() { MAX_WORD_BYTES } else { MAX_LINE_BYTES };
            if fresh > limit && (is_whole || fresh >= limit + longest + MAX_CHARACTER_BYTES) {
                let Some(word) = word else { return Some(self.cut(end, longest)) };
                self.skip(end, line_end.is_some());
                if line_end.is_none() {
                    self.place = Place::InLongWord;
                }
                return Some(Piece::LongWord(word));
            }
            if !is_whole {
                self.searched = data.len();
                return None;
            }
            if line_end.is_none() && fresh == 0 {
                return None;
            }
            return Some(self.finish(end, line_end.is_some()));
        }
    }

    /// Drops what is before a line's end, and the end.
    fn skip(&mut self, end: usize, has_line_end: bool) {
        self.start += end + usize::from(has_line_end);
        (self.context, self.searched) = (0, 0);
        if has_line_end {
            self.place = Place::LineStart;
        }
    }

    /// Hands on the beginning of a long line.
    fn cut(&mut self, end: usize, longest: usize) -> Piece<'_> {
        let (start, context) = (self.start, self.context);
        let data = &self.buffer[start..start + end];
        let mut cut = context + MAX_LINE_BYTES;
        let is_inside_character = |at: usize| data.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
        if let Some(boundary) =
            (cut + 1 - MAX_CHARACTER_BYTES..=cut).rev().find(|at| !is_inside_character(*at))
        {
            cut = boundary;
        }
        let kept = longest.min(cut);
        self.start += cut - kept;
        (self.context, self.searched, self.place) = (kept, kept, Place::InLine);
        let seen = end.min(cut + longest);
        Piece::Part { text: &self.buffer[start..start + seen], range: context..cut, continues: true }
    }

    /// Hands on a line, or what is left of one.
    fn finish(&mut self, end: usize, has_line_end: bool) -> Piece<'_> {
        let (start, context, place) = (self.start, self.context, self.place);
        self.skip(end, has_line_end);
        self.place = Place::LineStart;
        let text = &self.buffer[start..start + end];
        let text = if end > context { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
        match place {
            Place::InLine => Piece::Part { text, range: context..text.len(), continues: false },
            _ => Piece::Line(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mask::Masker;

    /// Everything that comes out of chunks, with parts put together again.
    fn lines_of(chunks: &[&[u8]], longest: usize) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = vec![Vec::new()];
        let mut take = |piece: Piece<'_>| {
            let (text, continues) = match piece {
                Piece::Line(text) => (text.to_vec(), false),
                Piece::Part { text, range, continues } => {
                    assert!(range.len() <= MAX_LINE_BYTES + MAX_CHARACTER_BYTES);
                    (text[range].to_vec(), continues)
                }
                Piece::LongWord(word) => (format!("long {word}").into_bytes(), false),
            };
            if let Some(last) = found.last_mut() {
                last.extend(text);
            }
            if !continues {
                found.push(Vec::new());
            }
        };
        for chunk in chunks {
            lines.push(chunk);
            while let Some(piece) = lines.next(longest, false) {
                take(piece);
            }
        }
        while let Some(piece) = lines.next(longest, true) {
            take(piece);
        }
        found.pop();
        found
    }

    #[test]
    fn lines_come_out_without_their_ends() {
        let lines = lines_of(&[b"one\ntw", b"o\r\n\nlast"], 0);
        assert_eq!(lines, [&b"one"[..], b"two", b"", b"last"]);
    }

    #[test]
    fn a_long_word_is_whole_and_one_that_is_too_long_is_gone() {
        let result = [b"::result \"", &vec![b'x'; 500_000][..], b"\""].concat();
        let too_long = [b"::mask ", &vec![b'y'; MAX_WORD_BYTES][..]].concat();
        let other = [b"::std::", &vec![b'z'; 200_000][..]].concat();
        let text = [&result[..], b"\n", &too_long, b"\nafter\n", &other].concat();
        let chunks: Vec<&[u8]> = text.chunks(10_000).collect();
        assert_eq!(lines_of(&chunks, 100), [&result[..], b"long mask", b"after", &other]);
        assert_eq!(lines_of(&[&text], 100), [&result[..], b"long mask", b"after", &other]);
        assert_eq!(lines_of(&[&too_long], 0), [b"long mask"]);
    }

    #[test]
    fn a_part_is_cut_between_characters_and_knows_its_surroundings() {
        let text = "ä".repeat(MAX_LINE_BYTES);
        let mut lines = Lines::default();
        lines.push(b"x");
        lines.push(text.as_bytes());
        let Some(Piece::Part { text: first, range, continues: true }) = lines.next(10, false) else {
            unreachable!("the line is long")
        };
        assert!(std::str::from_utf8(&first[range.clone()]).is_ok());
        assert_eq!((range.start, first.len()), (0, range.end + 10));
        let Some(Piece::Part { range, .. }) = lines.next(10, true) else { unreachable!("there is more") };
        assert_eq!(range.start, 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// However the bytes come in, the same lines come out.
        #[test]
        fn chunks_do_not_matter(
            lengths in prop::collection::vec(prop_oneof![0..40_usize, 65_000..200_000_usize], 0..6),
            chunk in prop_oneof![1..50_usize, 1_000..300_000_usize],
            longest in 0..5_000_usize,
            is_ended in any::<bool>(),
        ) {
            let chunk = if lengths.iter().sum::<usize>() > 10_000 { chunk.max(1_000) } else { chunk };
            let expected: Vec<Vec<u8>> = lengths.iter().map(|length| vec![b'a'; *length]).collect();
            let mut text = expected.join(&b'\n');
            if is_ended || expected.last().is_some_and(Vec::is_empty) {
                text.extend(expected.last().map(|_| b'\n'));
            }
            let chunks: Vec<&[u8]> = text.chunks(chunk).collect();
            prop_assert_eq!(lines_of(&chunks, longest), expected);
        }

        /// Wherever values stand in a line without an end, and however it comes in, none of them shows.
        #[test]
        fn values_do_not_show_across_cuts(
            places in prop::collection::vec(0..200_000_usize, 1..40),
            near in prop::collection::vec(-30..30_isize, 0..6),
            chunk in 5_000..300_000_usize,
        ) {
            let value = b"a value that must not be seen";
            let mut masker = Masker::default();
            prop_assert_eq!(masker.add(value), Ok(()));
            let near = near.iter().enumerate().filter_map(|(cut, shift)| ((cut + 1) * MAX_LINE_BYTES).checked_add_signed(*shift));
            let mut text = vec![b'.'; 200_000];
            let mut free = text.len();
            let places: std::collections::BTreeSet<usize> = places.into_iter().chain(near).collect();
            for place in places.into_iter().rev().filter(|place| *place < 200_000) {
                if place + value.len() <= free {
                    text[place..place + value.len()].copy_from_slice(value);
                    free = place;
                }
            }
            let dots = text.iter().filter(|byte| **byte == b'.').count();
            let mut shown = Vec::new();
            let mut lines = Lines::default();
            for (chunk, is_end) in text.chunks(chunk).map(|chunk| (chunk, false)).chain([(&b""[..], true)]) {
                lines.push(chunk);
                while let Some(piece) = lines.next(masker.longest(), is_end) {
                    let Piece::Part { text, range, .. } = piece else { return Err(TestCaseError::fail("no part")) };
                    shown.extend_from_slice(&masker.mask_range(text, range));
                }
            }
            prop_assert_eq!(shown.iter().filter(|byte| **byte == b'.').count(), dots);
            prop_assert!(shown.iter().all(|byte| matches!(byte, b'.' | b'*')));
        }
    }
}
