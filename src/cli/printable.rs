//! Text that comes from elsewhere, made harmless to a terminal: what would move its cursor, set its title or turn
//! the direction of writing is shown by its number.
//! Data for programs stays as it is: only what people read goes through here.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

/// What a terminal obeys instead of showing it, and what hides the order of what it shows: the control characters
/// but for the end of a line and the tab, and those that turn the direction (Unicode, "Bidi_Control").
fn is_obeyed(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        other => other.is_control(),
    }
}

/// The text with `\u` and four digits in place of each such character, as JSON has it; all are of the first plane.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_obeyed(character) {
            let _never_fails = write!(shown, "\\u{:04x}", u32::from(character));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// Standard output for JSON, which stays as it is unless a terminal shows it. There such a character can only stand
/// in a string, where its number says the same.
#[derive(Debug)]
pub(crate) struct Shown<W> {
    out: W,
    to_terminal: bool,
}

impl<W: Write> Shown<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, to_terminal: io::stdout().is_terminal() }
    }
}

impl<W: Write> Write for Shown<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    /// Strings are written in parts that end with a character; anything else is no text and goes as it is.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) if self.to_terminal => self.out.write_all(printable(text).as_bytes()),
            Ok(_) | Err(_) => self.out.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_by_its_number() {
        for (text, shown) in [
            ("plain, ä 漢 🦀\n\tstays", "plain, ä 漢 🦀\n\tstays"),
            ("\u{1b}]0;owned\u{7}", "\\u001b]0;owned\\u0007"),
            ("a\u{9b}31m", "a\\u009b31m"),
            ("del\u{7f}", "del\\u007f"),
            ("txt.\u{202e}exe", "txt.\\u202eexe"),
            ("\u{2067}x\u{2069}", "\\u2067x\\u2069"),
            ("back\rto the start", "back\\u000dto the start"),
        ] {
            assert_eq!(printable(text), shown);
        }
    }

    /// Valid JSON of the same value, at a terminal; the same bytes anywhere else.
    #[test]
    fn json_says_the_same_at_a_terminal_and_stays_as_it_is_for_programs() {
        let value = serde_json::json!({ "k\u{9b}": "a\u{202e}b\u{7f}\u{1b}ü" });
        let written = |to_terminal| {
            let mut shown = Shown { out: Vec::new(), to_terminal };
            serde_json::to_writer(&mut shown, &value).expect("written");
            String::from_utf8(shown.out).expect("text")
        };
        assert_eq!(written(false), value.to_string());
        let at_terminal = written(true);
        assert!(!at_terminal.contains(is_obeyed), "{at_terminal:?}");
        let read: serde_json::Value = serde_json::from_str(&at_terminal).expect("JSON");
        assert_eq!(read, value);
    }
}
