//! Where log lines go: to the journal with their fields, or to standard error as text.
//! What is worth a line, and at which level, is each module's own.

use std::{
    fmt::{self, Debug},
    io,
    os::fd::AsFd,
};

use anyhow::{Context as _, Result, bail};
use tracing::{Level, field::Field, level_filters::LevelFilter};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::format::{FieldFn, Writer, debug_fn},
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::edge::bus::LogControl;

/// What is kept out of the log unless it is asked for by name: zbus logs every message, at levels
/// that are meant for those who look for a fault in the daemon.
const QUIET_TARGETS: [&str; 1] = ["zbus"];

/// What a level is in the journal. `info` is an ordinary message there, not the notice that the layer would
/// make of it.
const PRIORITIES: PriorityMappings = PriorityMappings {
    error: Priority::Error,
    warn: Priority::Warning,
    info: Priority::Informational,
    debug: Priority::Debug,
    trace: Priority::Debug,
};

/// Changes the level of a running daemon.
#[derive(Debug)]
pub(super) struct LogLevel(reload::Handle<EnvFilter, Registry>);

impl LogLevel {
    /// Puts another filter in force.
    pub(super) fn set(&self, filter: &str) -> Result<()> {
        self.0.reload(parse(filter)?).context("cannot change the log level")
    }
}

impl LogControl for LogLevel {
    fn level(&self) -> LevelFilter {
        let hint = self.0.with_current(EnvFilter::max_level_hint).ok().flatten();
        hint.unwrap_or(LevelFilter::TRACE)
    }

    fn set_level(&self, level: Level) -> Result<(), String> {
        self.set(&level.to_string()).map_err(|error| format!("{error:#}"))
    }

    fn target(&self) -> &'static str {
        if stderr_is_journal() { "journal" } else { "console" }
    }
}

/// Starts logging.
pub(super) fn start(filter: &str) -> Result<LogLevel> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    if stderr_is_journal() {
        let journal = tracing_journald::layer()
            .context("cannot reach the journal")?
            .with_field_prefix(None)
            .with_priority_mappings(PRIORITIES)
            .with_syslog_identifier("cortexd".into());
        registry.with(journal).init();
    } else {
        let ansi =
            io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none();
        registry
            .with(
                tracing_subscriber::fmt::layer()
                    .with_writer(io::stderr)
                    .with_target(false)
                    .fmt_fields(without_message_id())
                    .with_ansi(ansi),
            )
            .init();
    }
    Ok(LogLevel(handle))
}

/// Fields as text, but for the message's id: that is the journal's.
fn without_message_id()
-> FieldFn<impl Fn(&mut Writer<'_>, &Field, &dyn Debug) -> fmt::Result + Clone> {
    debug_fn(|writer: &mut Writer<'_>, field: &Field, value: &dyn Debug| match field.name() {
        "MESSAGE_ID" => Ok(()),
        "message" => write!(writer, "{value:?}"),
        name => write!(writer, " {name}={value:?}"),
    })
}

/// Refuses a filter that cannot be read.
pub(super) fn validate(filter: &str) -> Result<()> {
    parse(filter).map(|_| ())
}

/// Reads `LEVEL`, `TARGET=LEVEL`, or several of them with commas between. Without a level of its own the rest
/// of the daemon logs at `info`.
fn parse(filter: &str) -> Result<EnvFilter> {
    let directives = filter.split(',').map(str::trim);
    let words: Vec<&str> = directives.filter(|one| !one.contains(['=', '['])).collect();
    // `EnvFilter` takes a word that is no level for a target, and a filter of targets alone shows nothing
    // else: one mistyped letter would silence the daemon.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    if let Some(word) = words.iter().find(|word| !is_level(word)) {
        bail!("{word:?} is no log level: error, warn, info, debug, trace, off, or TARGET=LEVEL");
    }
    let mut whole = EnvFilter::builder().parse(filter).context("this is no log filter")?;
    if words.is_empty() {
        whole = whole.add_directive(LevelFilter::INFO.into());
    }
    if whole.max_level_hint().is_none_or(|most| most > LevelFilter::WARN) {
        for target in QUIET_TARGETS.into_iter().filter(|target| !filter.contains(target)) {
            whole = whole.add_directive(format!("{target}=warn").parse()?);
        }
    }
    Ok(whole)
}

/// True where standard error is connected to the journal: `JOURNAL_STREAM` names the very file
/// (systemd.exec(5)). The variable alone is inherited by children whose output goes elsewhere.
pub(super) fn stderr_is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr().as_fd())
        .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for filter in ["warnning", "", "info,", "cortexd", "info,verbose", "debug,cortexd::store"] {
            let error = parse(filter).expect_err(filter).to_string();
            assert!(error.contains("is no log level"), "{filter}: {error}");
        }
        for filter in ["INFO", "off", "info,cortexd::store=debug", "warn,cortexd[span]=trace"] {
            assert!(parse(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_filter_of_targets_alone_leaves_the_rest_at_info() {
        assert!(parse("cortexd::store=debug").expect("valid").to_string().contains("info"));
        assert!(!parse("warn,cortexd=debug").expect("valid").to_string().contains("info"));
    }

    #[test]
    fn zbus_is_quiet_unless_it_is_asked_for() {
        let shown = |filter| parse(filter).expect(filter).to_string();
        assert!(shown("debug").contains("zbus=warn"), "{}", shown("debug"));
        assert!(shown("info,zbus=trace").contains("zbus=trace"));
        assert!(!shown("info,zbus=trace").contains("zbus=warn"));
        assert!(!shown("error").contains("zbus"), "it is quieter than that already");
    }
}
