//! The interface org.freedesktop.LogControl1: `systemctl service-log-level cortexd debug`.
//! Where lines go, and which, is the daemon's.

use std::{fmt::Debug, sync::Arc};

use cortex_core::model::Uid;
use tracing::{Level, info, level_filters::LevelFilter};
use zbus::{Connection, interface, message::Header};

use super::{
    dispatcher::{Dispatcher, Incoming},
    error::{Error, Result},
};

/// The log of the running daemon.
pub trait LogControl: Debug + Send + Sync {
    /// The least severe level that is logged anywhere.
    fn level(&self) -> LevelFilter;

    /// Logs at that level until the settings are read again.
    ///
    /// # Errors
    /// A text that says what went wrong.
    fn set_level(&self, level: Level) -> std::result::Result<(), String>;

    /// Where lines go: `journal` or `console`.
    fn target(&self) -> &'static str;
}

/// What lines in the journal are marked with.
const IDENTIFIER: &str = "cortexd";

/// The levels of syslog(3), and ours. The first of those that are one to us is the one that is shown.
const LEVELS: [(&str, Level); 8] = [
    ("err", Level::ERROR),
    ("crit", Level::ERROR),
    ("alert", Level::ERROR),
    ("emerg", Level::ERROR),
    ("warning", Level::WARN),
    ("info", Level::INFO),
    ("notice", Level::INFO),
    ("debug", Level::DEBUG),
];

/// The log, as org.freedesktop.LogControl1(5) describes it.
#[derive(Debug)]
pub(super) struct Log {
    dispatcher: Arc<Dispatcher>,
    log: Arc<dyn LogControl>,
}

impl Log {
    pub(super) fn new(dispatcher: Arc<Dispatcher>, log: Arc<dyn LogControl>) -> Self {
        Self { dispatcher, log }
    }

    /// Lets root pass, and nobody by way of polkit: while a property is set, zbus holds a lock on all
    /// objects, and a person who is asked for a password may take minutes.
    async fn require_root(
        &self,
        header: Option<Header<'_>>,
        connection: &Connection,
    ) -> Result<()> {
        let denied =
            || Error::access_denied("only root may change where the log goes, and how much");
        let header = header.ok_or_else(denied)?;
        let uid = self.dispatcher.uid(Incoming { connection, header: &header }).await?;
        if uid == Uid::ROOT { Ok(()) } else { Err(denied()) }
    }
}

#[interface(name = "org.freedesktop.LogControl1", introspection_docs = false)]
impl Log {
    #[zbus(property(emits_changed_signal = "false"))]
    fn log_level(&self) -> &'static str {
        let level = self.log.level();
        let named = LEVELS.iter().find(|(_, known)| *known == level);
        // What is left is our finest level, and none at all.
        named.map_or(if level == LevelFilter::OFF { "emerg" } else { "debug" }, |(name, _)| name)
    }

    #[zbus(property)]
    async fn set_log_level(
        &self,
        level: String,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.require_root(header, connection).await?;
        let named = LEVELS.iter().find(|(name, _)| *name == level);
        let (_, level) =
            named.ok_or_else(|| Error::invalid_args(format!("no log level: {level}")))?;
        self.log.set_level(*level).map_err(Error::failed)?;
        info!(%level, "the log level is {level} from now on");
        Ok(())
    }

    #[zbus(property(emits_changed_signal = "false"))]
    fn log_target(&self) -> &'static str {
        self.log.target()
    }

    #[zbus(property)]
    async fn set_log_target(
        &self,
        target: String,
        #[zbus(header)] header: Option<Header<'_>>,
        #[zbus(connection)] connection: &Connection,
    ) -> Result<()> {
        self.require_root(header, connection).await?;
        if target == self.log.target() {
            return Ok(());
        }
        Err(Error::not_supported("the log goes where the daemon's standard error goes"))
    }

    #[zbus(property(emits_changed_signal = "const"))]
    fn syslog_identifier(&self) -> &'static str {
        IDENTIFIER
    }
}
