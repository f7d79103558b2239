//! The command line of cortexd.
//! What a setting means and where it comes from otherwise is in `config`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A local-first store for the agents and services of one person's machines.
///
/// Without options it serves the user who starts it; as root, the whole machine.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "cortexd", version, about)]
pub struct Args {
    /// Listen on this Unix socket [env: CORTEX_SOCKET]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,

    /// Keep the data in this directory [env: CORTEX_DATA_DIR]
    #[arg(long, value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,

    /// Read settings from this file (TOML) and from FILE.d/*.toml; see cortex.toml(5)
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Log at this level: error, warn, info, debug, trace, or a filter like "info,cortexd::store=debug"
    #[arg(long, value_name = "LEVEL", global = true)]
    pub log: Option<String>,

    /// Check the settings, print them and exit
    #[arg(long)]
    pub check: bool,

    /// What to do instead of serving
    #[command(subcommand)]
    pub action: Option<Action>,
}

/// What cortexd does besides serving.
#[derive(Clone, Debug, Subcommand)]
pub enum Action {
    /// Put a backup made by `cortex backup` in the place of the database; no daemon may be using it
    Restore {
        /// The backup
        file: PathBuf,
    },
}
