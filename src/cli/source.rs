//! The files that `import` reads and `export` writes: records in a row, as NDJSON or as bare MessagePack.
//! Leaves the storing to `import`, and whether a record suits its table to the daemon.

use std::io::{self, BufRead, BufReader, Read};

use clap::ValueEnum;
use cortex_client::{MAX_REQUEST, raw};

use super::json;

/// How records are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object per line
    Ndjson,
    /// One MessagePack map after another, byte for byte as stored
    Msgpack,
}

/// A text of this length is no record, and a line of it none either: the most wasteful JSON of a record that the
/// daemon takes (a megabyte
/// of binaries of a byte or none) has some 22 bytes of text for each of its own. It bounds the memory that a
/// file without line breaks can take.
pub(crate) const MAX_TEXT: usize = 24 * MAX_REQUEST;

/// As much as a pipe holds on Linux.
const READ_SIZE: usize = 64 * 1024;

/// Reads the records of a file, one by one.
#[derive(Debug)]
pub(crate) struct Source<R> {
    input: BufReader<R>,
    format: Format,
    number: u64,
    bytes: u64,
    line: Vec<u8>,
}

/// What stands next in a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextRecord {
    /// A record.
    Record,
    /// Something that is not a record, and why.
    Bad(String),
    /// Something after which it is unknown where the next record begins.
    Broken(String),
    End,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(input: R, format: Format) -> Self {
        Self {
            input: BufReader::with_capacity(READ_SIZE, input),
            format,
            number: 0,
            bytes: 0,
            line: Vec::new(),
        }
    }

    /// Reads what stands next; a record replaces the contents of `record`.
    pub(crate) fn next_record(&mut self, record: &mut Vec<u8>) -> io::Result<NextRecord> {
        record.clear();
        match self.format {
            Format::Ndjson => self.next_line(record),
            Format::Msgpack => self.next_value(record),
        }
    }

    /// The number of the line (or record) last read, from one.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// How many bytes were read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What [`number`](Self::number) counts.
    pub(crate) fn unit(&self) -> &'static str {
        match self.format {
            Format::Ndjson => "line",
            Format::Msgpack => "record",
        }
    }

    /// Whether reading on may have to wait for the writer of the file.
    pub(crate) fn may_wait(&self) -> bool {
        self.input.buffer().is_empty()
    }

    fn next_line(&mut self, record: &mut Vec<u8>) -> io::Result<NextRecord> {
        loop {
            self.line.clear();
            let read = (&mut self.input).take(MAX_TEXT as u64).read_until(b'\n', &mut self.line)?;
            if read == 0 {
                return Ok(NextRecord::End);
            }
            self.number += 1;
            self.bytes += read as u64;
            if read == MAX_TEXT && !self.line.ends_with(b"\n") {
                self.bytes += self.input.skip_until(b'\n')? as u64;
                return Ok(NextRecord::Bad(format!("longer than {MAX_TEXT} bytes")));
            }
            if self.number == 1
                && let Some(reason) = encoding_in_the_way(&self.line)
            {
                return Ok(NextRecord::Broken(reason.to_owned()));
            }
            let line = without_mark(&self.line);
            if !line.trim_ascii().is_empty() {
                return Ok(parsed(line, record));
            }
        }
    }

    fn next_value(&mut self, record: &mut Vec<u8>) -> io::Result<NextRecord> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(NextRecord::End);
        }
        self.number += 1;
        match raw::copy_value(&mut self.input, record, MAX_REQUEST) {
            Ok(size) => {
                self.bytes += size;
                if size > record.len() as u64 {
                    Ok(NextRecord::Bad(format!(
                        "{size} bytes long, and the limit is {MAX_REQUEST}"
                    )))
                } else if json::is_object(record) {
                    Ok(NextRecord::Record)
                } else {
                    Ok(NextRecord::Bad("not a map".to_owned()))
                }
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Ok(NextRecord::Broken("cut short".to_owned()))
            }
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                Ok(NextRecord::Broken(format!("not MessagePack: {e}")))
            }
            Err(e) => Err(e),
        }
    }
}

/// A text without the byte order mark that some programs write before UTF-8, also where files were put one
/// behind the other.
pub(crate) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// Why a file with this first line holds no line of JSON at all, if its bytes say so, and what makes one of it.
fn encoding_in_the_way(line: &[u8]) -> Option<&'static str> {
    match line {
        [0x1f, 0x8b, ..] => {
            Some("the file is compressed with gzip: zcat FILE | cortex import TABLE")
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Some("the file is compressed with zstd: zstdcat FILE | cortex import TABLE")
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [b'{', 0, ..] | [0, b'{', ..] => Some(
            "the file is in UTF-16 and must be in UTF-8: iconv -f UTF-16 -t UTF-8 FILE | cortex import TABLE",
        ),
        [0x80..=0x8f | 0xde | 0xdf, ..] => {
            Some("the file begins as MessagePack does: cortex import --format msgpack TABLE FILE")
        }
        _ => None,
    }
}

fn parsed(line: &[u8], record: &mut Vec<u8>) -> NextRecord {
    match json::read(line, record) {
        Err(e) if e.is_cut_short() => NextRecord::Bad(format!(
            "not JSON: {e}; a record must stand on one line, as jq -c . FILE writes it"
        )),
        Err(e) => NextRecord::Bad(format!("not JSON: {e}")),
        Ok(()) if json::is_object(record) => NextRecord::Record,
        Ok(()) if json::is_array(record) => NextRecord::Bad(
            "not a JSON object but an array; jq -c '.[]' FILE writes its elements one per line"
                .to_owned(),
        ),
        Ok(()) => NextRecord::Bad("not a JSON object".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything in a file: its records as JSON, and the number and reason of what is none.
    fn everything(file: impl Read, format: Format) -> Vec<String> {
        let mut source = Source::new(file, format);
        let mut record = Vec::new();
        let mut found = Vec::new();
        loop {
            match source.next_record(&mut record).expect("a file in memory is readable") {
                NextRecord::Record => {
                    let mut text = Vec::new();
                    json::write(&record, &mut text, &mut json::Layout::compact())
                        .expect("a record");
                    found.push(format!("{}: {}", source.number(), String::from_utf8_lossy(&text)));
                }
                NextRecord::Bad(reason) => {
                    found.push(format!("{}: bad: {reason}", source.number()));
                }
                NextRecord::Broken(reason) => {
                    found.push(format!("{}: broken: {reason}", source.number()));
                    return found;
                }
                NextRecord::End => return found,
            }
        }
    }

    #[test]
    fn lines_are_numbered_as_an_editor_numbers_them_and_blank_ones_are_no_records() {
        let file = b"{\"id\":1}\r\n\n  \n[2]\nnot json\n{\"id\":3}";
        let found = everything(file.as_slice(), Format::Ndjson);
        assert_eq!(found[0], r#"1: {"id":1}"#);
        assert!(found[1].starts_with("4: bad: not a JSON object"), "{}", found[1]);
        assert!(found[1].contains("jq -c '.[]'"), "{}", found[1]);
        assert!(found[2].starts_with("5: bad: not JSON: "), "{}", found[2]);
        assert_eq!(found[3], r#"6: {"id":3}"#);
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn a_line_without_end_costs_itself_and_not_the_lines_after_it() {
        let file = io::repeat(b'x').take(2 * MAX_TEXT as u64).chain(b"\n{\"id\":2}\n".as_slice());
        let found = everything(file, Format::Ndjson);
        assert_eq!(
            found,
            [format!("1: bad: longer than {MAX_TEXT} bytes"), r#"2: {"id":2}"#.to_owned()]
        );
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_at_the_start_of_every_file_that_was_put_together() {
        let file = b"\xef\xbb\xbf{\"id\":1}\n\xef\xbb\xbf{\"id\":2}\n\xef\xbb\xbf";
        let found = everything(file.as_slice(), Format::Ndjson);
        assert_eq!(found, [r#"1: {"id":1}"#, r#"2: {"id":2}"#]);
    }

    #[test]
    fn a_file_in_another_encoding_is_named_and_so_is_what_reads_it() {
        for (file, named) in [
            (&b"\x1f\x8b\x08\0rest"[..], "zcat"),
            (b"\x28\xb5\x2f\xfdrest", "zstdcat"),
            (b"\xff\xfe{\0\"\0", "iconv"),
            (b"\xfe\xff\0{\0\"", "iconv"),
            (b"{\0\"\0i\0", "iconv"),
            (b"\x81\xa2id\x01", "--format msgpack"),
        ] {
            let found = everything(file, Format::Ndjson);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("1: broken: ") && found[0].contains(named), "{found:?}");
        }
    }

    #[test]
    fn a_record_on_several_lines_is_refused_with_what_makes_one_line_of_it() {
        let found = everything(b"{\n  \"id\": 1\n}\n".as_slice(), Format::Ndjson);
        assert!(found[0].contains("on one line") && found[0].contains("jq -c ."), "{}", found[0]);
        assert_eq!(found.len(), 3, "no line of it is a record: {found:?}");
    }

    #[test]
    fn messagepack_records_stand_one_after_another() {
        let file = [0x81, 0xa2, b'i', b'd', 1, 0x93, 1, 2, 3, 0x81, 0xa2, b'i', b'd', 2];
        let found = everything(file.as_slice(), Format::Msgpack);
        assert_eq!(found, [r#"1: {"id":1}"#, "2: bad: not a map", r#"3: {"id":2}"#]);
    }

    #[test]
    fn a_messagepack_file_is_broken_where_it_is_cut_or_is_no_messagepack() {
        assert_eq!(
            everything([0x81, 0xa2, b'i'].as_slice(), Format::Msgpack),
            ["1: broken: cut short"]
        );
        assert!(
            everything([0xc1].as_slice(), Format::Msgpack)[0]
                .starts_with("1: broken: not MessagePack")
        );
    }
}
