//! Printing: data on standard output, everything else on standard error, and no panic when nobody reads.
//! Leaves what is printed to the commands, and JSON to `json`.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::process::ExitCode;

use clap::{ColorChoice, ValueEnum};

use super::failure::Failure;
use super::json::{self, Layout};
use super::printable::{Shown, printable};

/// As much as a pipe holds on Linux: a longer write would wait for its reader in the middle.
const BUFFER: usize = 64 * 1024;

/// Prints values as JSON, one per line or indented.
#[derive(Debug)]
pub(crate) struct Printer {
    out: Shown<BufWriter<StdoutLock<'static>>>,
    layout: Layout,
}

impl Printer {
    pub(crate) fn new(pretty: bool) -> Self {
        let layout = if pretty { Layout::pretty() } else { Layout::compact() };
        let out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
        Self { out: Shown::new(out), layout }
    }

    /// Prints one value, given as MessagePack.
    pub(crate) fn value(mut self, bytes: &[u8]) -> Result<(), Failure> {
        json::write(bytes, &mut self.out, &mut self.layout).map_err(writing)?;
        self.end()
    }

    /// Begins an array whose elements are still to come. What has come is printed even if the rest never does;
    /// the output is then no JSON, and the exit status says so.
    pub(crate) fn array(self) -> ArrayPrinter {
        ArrayPrinter { printer: self, count: 0 }
    }

    fn end(mut self) -> Result<(), Failure> {
        self.out.write_all(b"\n").map_err(writing)?;
        self.out.flush().map_err(writing)
    }
}

/// Prints an array by its elements.
#[derive(Debug)]
pub(crate) struct ArrayPrinter {
    printer: Printer,
    count: u64,
}

impl ArrayPrinter {
    /// Prints one more element, given as MessagePack.
    pub(crate) fn element(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.open()?;
        let Printer { out, layout } = &mut self.printer;
        layout.item(out, self.count == 0).map_err(writing)?;
        json::write(bytes, out, layout).map_err(writing)?;
        self.count += 1;
        Ok(())
    }

    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.open()?;
        let Printer { out, layout } = &mut self.printer;
        layout.close(out, b"]", self.count == 0).map_err(writing)?;
        self.printer.end()
    }

    /// Not before there is something to print: a refusal leaves standard output empty.
    fn open(&mut self) -> Result<(), Failure> {
        let Printer { out, layout } = &mut self.printer;
        if layout.is_outside() { layout.open(out, b"[").map_err(writing) } else { Ok(()) }
    }
}

/// What a failed write to standard output means.
pub(crate) fn writing(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::reader_gone()
    } else {
        Failure::while_doing("writing the output", error)
    }
}

/// Prints text for humans on standard output.
pub(crate) fn text(text: &impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{}", printable(&text.to_string())).and_then(|()| out.flush()).map_err(writing)
}

/// Prints a line for humans on standard error. There is nowhere to report that this failed.
pub(crate) fn note(line: &str) {
    print_line(&printable(line));
}

/// The same of a line that may set colours.
fn print_line(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints why a command failed and returns its exit status.
pub(crate) fn report(failure: &Failure, color: ColorChoice) -> ExitCode {
    let (red, cyan, plain) =
        if use_color(color) { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
    if !failure.message.is_empty() {
        print_line(&format!("{red}error:{plain} {}", printable(&failure.message)));
    }
    if let Some(hint) = &failure.hint {
        print_line(&format!("{cyan}hint:{plain} {}", printable(hint)));
    }
    failure.exit.into()
}

fn use_color(color: ColorChoice) -> bool {
    match color {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            io::stderr().is_terminal() && !no_color && !dumb
        }
    }
}

/// The value of `--color`, found before the arguments are parsed: errors in parsing are coloured too.
pub(crate) fn color_choice(args: &[OsString]) -> ColorChoice {
    let words = args.iter().filter_map(|arg| arg.to_str()).take_while(|word| *word != "--");
    let mut after_option = false;
    for word in words {
        let value = if after_option { Some(word) } else { word.strip_prefix("--color=") };
        if let Some(choice) = value.and_then(|value| ColorChoice::from_str(value, false).ok()) {
            return choice;
        }
        after_option = word == "--color";
    }
    ColorChoice::Auto
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn color_is_found_wherever_it_stands() {
        let choice =
            |args: &[&str]| color_choice(&args.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(choice(&["cortex", "ping"]), ColorChoice::Auto);
        assert_eq!(choice(&["cortex", "ping", "--color=never"]), ColorChoice::Never);
        assert_eq!(choice(&["cortex", "--color", "always", "ping"]), ColorChoice::Always);
        assert_eq!(choice(&["cortex", "get", "--", "--color=never"]), ColorChoice::Auto);
    }
}
