//! What every command needs: the global options, a connection, and a call whose result is printed.
//! Leaves the default places to `paths` and the form of the output to `output`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args, ColorChoice};
use cortex_client::{Client, api::Request};

use super::failure::{Exit, Failure};
use super::output::Printer;
use crate::sys::fragments;
use crate::sys::paths::{self, Environment};

/// Long enough for a daemon on a slow disk under load, short enough that a script notices a dead one.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's socket [default: CORTEX_SOCKET, the configuration file, then the usual places]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// The daemon's configuration file, to find its socket
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Indent the output
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    pretty: bool,
    /// Print data as JSON, also where people get lines (doctor, sync status --pretty)
    #[arg(long, global = true, action = ArgAction::SetTrue)]
    json: bool,
    /// Whether messages and help are coloured; the NO_COLOR variable means never
    #[arg(long, value_name = "WHEN", global = true, default_value = "auto")]
    pub(crate) color: ColorChoice,
    /// How long the daemon may be silent before cortex gives up (exit 3); 0 waits for ever [default: 30]
    #[arg(long, value_name = "SECONDS", global = true, value_parser = timeout)]
    timeout: Option<Timeout>,
}

impl Global {
    /// How long to wait: as the user has chosen, or else as is `usual`. `None` waits for ever.
    fn time_limit(&self, usual: Option<Duration>) -> Option<Duration> {
        self.timeout.map_or(usual, |Timeout(chosen)| chosen)
    }
}

/// `None` waits for ever.
#[derive(Debug, Clone, Copy)]
struct Timeout(Option<Duration>);

fn timeout(text: &str) -> Result<Timeout, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let timeout = Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())?;
    Ok(Timeout(Some(timeout).filter(|timeout| !timeout.is_zero())))
}

#[derive(Debug)]
pub(crate) struct Context {
    global: Global,
}

impl Context {
    pub(crate) fn new(global: Global) -> Self {
        Self { global }
    }

    pub(crate) fn color(&self) -> ColorChoice {
        self.global.color
    }

    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket()?, self.global.time_limit(Some(DEFAULT_TIMEOUT)))?)
    }

    /// For a request that carries its own timeout.
    pub(crate) fn connect_for(&self, time_limit: Duration) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket()?, Some(time_limit))?)
    }

    /// The timeout that the user has chosen; within it, none for ever.
    pub(crate) fn chosen_timeout(&self) -> Option<Option<Duration>> {
        self.global.timeout.map(|Timeout(chosen)| chosen)
    }

    /// Whether people are to read the output, where a command has lines for them.
    pub(crate) fn is_for_people(&self) -> bool {
        self.global.pretty && !self.global.json
    }

    /// Whether JSON is asked for, where a command prints lines otherwise.
    pub(crate) fn is_json(&self) -> bool {
        self.global.json
    }

    /// For a request that takes the daemon long before it says anything: a timeout counts only if
    /// the user has chosen it.
    pub(crate) fn connect_patiently(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.socket()?, self.global.time_limit(None))?)
    }

    /// The configuration file that was named, or else `usual`, and what it says. One that cannot be read
    /// says nothing: whether it is valid is for the daemon to decide.
    pub(crate) fn configuration(&self, usual: Option<&Path>) -> Configured {
        let file = self.global.config.clone().or_else(|| usual.map(Path::to_owned));
        let said =
            |key: &str| file.as_deref().and_then(|file| text_in_config(file, key).ok().flatten());
        let (data_dir, bus) = (said("data_dir").map(PathBuf::from), said("bus"));
        Configured { file, data_dir, bus }
    }

    pub(crate) fn printer(&self) -> Printer {
        Printer::new(self.global.pretty)
    }

    /// Calls a method and prints its result.
    pub(crate) fn call<'r, R: Request<'r>>(&self, request: &R) -> Result<(), Failure> {
        let result = self.connect()?.call_raw(request)?;
        self.printer().value(&result)
    }

    /// The socket of the daemon that is meant.
    pub(crate) fn socket(&self) -> Result<PathBuf, Failure> {
        let env = Environment::of_this_process();
        // The configuration is read only if it decides: a broken one does not stand in the way of --socket.
        let config = match &self.global.config {
            Some(file) if self.global.socket.is_none() && env.cortex_socket.is_none() => {
                text_in_config(file, "socket")?.map(PathBuf::from)
            }
            _ => None,
        };
        if let Some(named) =
            paths::first_named(self.global.socket.clone(), env.cortex_socket.clone(), config)
        {
            return Ok(named);
        }
        let candidates = paths::socket_candidates_for_client(&env);
        paths::first_usable(&candidates, env.uid).map(PathBuf::from).ok_or_else(|| {
            Failure::new(Exit::NotRunning, "cortexd is not running: no usual place has its socket")
        })
    }
}

/// What the configuration says, as far as clients ask for it.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) file: Option<PathBuf>,
    pub(crate) data_dir: Option<PathBuf>,
    /// Which message bus the daemon is to be on.
    pub(crate) bus: Option<String>,
}

/// A text in the daemon's configuration, which has many keys that are of no interest to clients: whether
/// they are valid is not for a client to judge.
fn text_in_config(file: &Path, key: &str) -> Result<Option<String>, Failure> {
    let attempt = || format!("reading the configuration {}", file.display());
    let config =
        fragments::read(file, |_| Ok(())).map_err(|e| Failure::while_doing(&attempt(), e))?;
    match config.table.get(key) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(Failure::new(Exit::Failed, format!("{}: `{key}` is not text", attempt()))),
        },
    }
}

#[cfg(test)]
mod tests {
    use clap::FromArgMatches;

    use super::*;

    #[test]
    fn a_timeout_that_is_chosen_counts_also_where_it_is_the_usual_one() {
        let time_limit = |args: &[&str]| {
            let command = Global::augment_args(clap::Command::new("cortex"));
            let matches = command.try_get_matches_from([&["cortex"], args].concat());
            let global = Global::from_arg_matches(&matches.expect("options")).expect("options");
            global.time_limit(None)
        };
        assert_eq!(time_limit(&[]), None);
        assert_eq!(time_limit(&["--timeout", "30"]), Some(DEFAULT_TIMEOUT));
        assert_eq!(time_limit(&["--timeout", "0"]), None);
    }
}
